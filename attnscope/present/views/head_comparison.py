"""Two sources of head scores: the points of a scatter plot, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.head_comparison import HeadComparison, OverlapResult, Side
from ..wording import SCORE_WORDS, number

GROUPS = ("in neither set", "in the first set alone", "in the second set alone", "in both sets")


@dataclass(frozen=True)
class ScatterGroup:
    """Heads of one kind: their names, and their two scores."""

    name: str
    heads: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class ScatterView:
    """A scatter plot of two scores; a side without scores has 1 for the heads of its set and 0 for others.

    Attributes:
        hidden: heads that lack a score on a side that has scores.
    """

    x_title: str
    y_title: str
    groups: tuple[ScatterGroup, ...]
    hidden: int


def scatter_view(comparison: HeadComparison) -> ScatterView:
    """Return the points by set, in the order of `GROUPS`; empty groups are there too."""
    kv = comparison.space == "kv_head"
    scored = [any(getattr(p, name) is not None for p in comparison.points) for name in ("first", "second")]
    found: list[list[tuple[str, float, float]]] = [[], [], [], []]
    hidden = 0
    for point in comparison.points:
        x = point.first if scored[0] else float(point.in_first)
        y = point.second if scored[1] else float(point.in_second)
        if x is None or y is None:
            hidden += 1
            continue
        name = f"L{point.layer} KV{point.head}" if kv else f"L{point.layer}H{point.head}"
        found[point.in_first + 2 * point.in_second].append((name, x, y))
    groups = tuple(
        ScatterGroup(name, tuple(i[0] for i in items), tuple(i[1] for i in items), tuple(i[2] for i in items))
        for name, items in zip(GROUPS, found, strict=True)
    )
    return ScatterView(
        side_title(comparison.first, scored[0]), side_title(comparison.second, scored[1]), groups, hidden
    )


def side_title(side: Side, scored: bool = True) -> str:
    """Return what a side's axis shows."""
    if not scored:
        return f"{side.chosen_by} of {side.path}: 1, others: 0"
    score = SCORE_WORDS[side.score].title.lower() if side.what == "run" else f"{side.what} {side.score}"
    how = " (largest of the KV head's query heads)" if side.reduction else ""
    return f"{score}{how}, {side.path}"


def overlap_sentence(found: OverlapResult, noun: str) -> str:
    """Return the overlap in one sentence.

    Example:
        >>> overlap_sentence(OverlapResult(heads=64, first=4, second=4, shared=3, jaccard=0.6, expected=0.25,
        ...     p_value=0.0004, layer_expected=1.0, layer_p_value=0.02), "query heads")
        '3 of 4 and 4 heads are in both sets (Jaccard 0.600); 0.250 by chance among 64 query heads (p = 0.0004), ...'
    """
    return (
        f"{found.shared} of {found.first} and {found.second} heads are in both sets (Jaccard {number(found.jaccard)}); "
        f"{number(found.expected)} by chance among {found.heads} {noun} (p = {found.p_value:.2g}), "
        f"{number(found.layer_expected)} by chance within layers (p = {found.layer_p_value:.2g})"
    )
