"""Where the embedded data lives, in a checkout and in an installed wheel."""

from __future__ import annotations

from importlib.util import find_spec
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
    package = find_spec("attnscope_data")
    for folder in (package and package.submodule_search_locations) or ():
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise AttnscopeError(
        f"embedded data {name!r}",
        found=f"nothing at {checkout} and none installed",
        expected="the file that the attnscope package ships",
        fix="Reinstall attnscope.",
    )
