"""Where the embedded data lives, in a checkout and in an installed wheel."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from .errors import AttnscopeError


def data_path(name: str) -> Path:
    """Return the path of an embedded data file or folder.

    Args:
        name: path below `data/`, for example `"pocket"` or `"pocket/heldout.txt"`.

    Raises:
        AttnscopeError: the installation lacks this file.

    Example:
        >>> data_path("pocket").name
        'pocket'
    """
    checkout = Path(__file__).resolve().parents[2] / "data" / name
    if checkout.exists():
        return checkout
    try:
        installed = Path(str(files("attnscope_data").joinpath(name)))
    except ModuleNotFoundError:
        installed = checkout
    if not installed.exists():
        raise AttnscopeError(
            f"embedded data {name!r}",
            found=f"nothing at {installed}",
            expected="the file that the attnscope package ships",
            fix="Reinstall attnscope.",
        )
    return installed
