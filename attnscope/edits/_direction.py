"""What steering and removing directions share: where they act, and vectors of the right width."""

from __future__ import annotations

from torch import Tensor

from ..core.errors import TaskError
from ._tokens import Positions, check_positions

STREAM_SITES = ("block_input", "block_output", "attention_output", "mlp_output")


def check_place(what: str, site: str, layers: tuple[int, ...], positions: Positions) -> None:
    """Refuse a site outside the stream, no layers, and positions below 0.

    Raises:
        TaskError: it names them.
    """
    if site not in STREAM_SITES:
        raise TaskError(f"site of {what}", found=repr(site), expected=", ".join(STREAM_SITES))
    if not layers:
        raise TaskError(what, found="no layers", expected="at least one")
    check_positions(what, positions)


def check_width(what: str, direction: Tensor, x: Tensor) -> None:
    """Refuse a direction of another width than the stream's.

    Raises:
        TaskError: it names both.
    """
    if direction.shape[-1] != x.shape[-1]:
        raise TaskError(f"direction of {what}", found=f"{direction.shape[-1]} numbers", expected=f"{x.shape[-1]}")
