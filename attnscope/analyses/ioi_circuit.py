"""The published circuit of GPT-2 small for indirect object identification, and how a ranking finds its heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from ..core.errors import StatisticsError
from ..core.ids import HeadId

HeadClass = Literal[
    "name mover", "backup name mover", "negative name mover", "s-inhibition", "induction", "duplicate token",
    "previous token",
]  # fmt: skip
_NAMES: dict[HeadClass, str] = {
    "name mover": "9.9 10.0 9.6",
    "backup name mover": "10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9",
    "negative name mover": "10.7 11.10",
    "s-inhibition": "7.3 7.9 8.6 8.10",
    "induction": "5.5 5.8 5.9 6.9",
    "duplicate token": "0.1 0.10 3.0",
    "previous token": "2.2 4.11",
}
IOI_CIRCUIT: Final[dict[HeadClass, tuple[HeadId, ...]]] = {
    name: tuple(HeadId.parse(head) for head in heads.split()) for name, heads in _NAMES.items()
}
"""The 26 heads by class (2211.00593)."""

IOI_POSITIONS: Final[dict[HeadClass, tuple[str, int]]] = {
    "name mover": ("end_position", 0),
    "backup name mover": ("end_position", 0),
    "negative name mover": ("end_position", 0),
    "s-inhibition": ("end_position", 0),
    "induction": ("s2_position", 0),
    "duplicate token": ("s2_position", 0),
    "previous token": ("s1_position", 1),
}
"""Where a class acts: a column of the task `ioi` and tokens after it. F(C) keeps heads at these positions alone."""

IOI_SHAPE: Final = (12, 12)
"""Layers and heads of GPT-2 small."""


def found_on_top(change: np.ndarray, heads: Sequence[HeadId], top: int, direction: Literal["drop", "rise"]) -> int:
    """Return how many of some heads stand among the first ones of a ranking.

    Args:
        change: `[L, H]` mean change of the metric.
        heads: that are looked for.
        top: heads of the ranking that count.
        direction: `drop` ranks from the largest fall down, `rise` from the largest rise.

    Raises:
        StatisticsError: a change is missing, or more heads are asked for than there are.

    Example:
        >>> found_on_top(np.array([[-2.0, 0.0], [-1.0, 1.0]]), [HeadId(0, 0), HeadId(0, 1)], 2, "drop")
        1
    """
    if np.isnan(change).any() or not 1 <= top <= change.size:
        found = "a missing change" if np.isnan(change).any() else f"the first {top} of {change.size} heads"
        raise StatisticsError("ranking of heads", found=found, expected="a change for every head, and some of them")
    order = np.argsort(change.ravel() if direction == "drop" else -change.ravel(), kind="stable")[:top]
    first = {HeadId(*(int(i) for i in np.unravel_index(index, change.shape))) for index in order}
    return len(first & set(heads))
