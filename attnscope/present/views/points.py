"""Estimates as points and as layer × head grids; what was not measured keeps its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.circuit_report import UnitDrop
from ...core.report import Missing
from ...core.sink_report import Estimate
from .scores import ScoreGrid


@dataclass(frozen=True)
class Point:
    """A value with its interval; None where it was not measured, and then `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str | None = None


def point(item: Estimate | UnitDrop | Missing | Point) -> Point:
    """Return an estimate as a point; a point is one already."""
    if isinstance(item, Point):
        return item
    if isinstance(item, Missing):
        return Point(None, reason=item.reason)
    interval = item.interval
    return Point(item.value, interval.low if interval else None, interval.high if interval else None, item.n)


@dataclass(frozen=True)
class Measure:
    """How a measurement of every head reads.

    Attributes:
        share: runs from 0 to 1.
        citation: arXiv id; empty where it is this project's.
        short: title of a narrow column; empty where the title is short enough.
        units: `1` where it has none.
    """

    title: str
    meaning: str
    share: bool = True
    citation: str = ""
    short: str = ""
    units: str = "1"

    @property
    def column(self) -> str:
        """Title of a table's column."""
        return self.short or self.title


def point_grid(
    name: str, measure: Measure, cells: Mapping[tuple[int, int], Estimate | Missing | Point], n_heads: int
) -> ScoreGrid:
    """Return a grid of one measurement.

    Args:
        name: of the measurement.
        measure: how it reads.
        cells: (layer, head) → estimate; a head that is not there is missing.
        n_heads: query heads a layer.
    """
    layers = tuple(sorted({layer for layer, _ in cells}))
    absent: Estimate | Missing | Point = Missing(reason="this head is not in the report")
    points = [[point(cells.get((layer, head), absent)) for head in range(n_heads)] for layer in layers]
    measured = any(p.value is not None for row in points for p in row)
    return ScoreGrid(
        score=name,
        title=measure.title,
        meaning=measure.meaning,
        prompt_set=None,
        units=measure.units,
        share=measure.share,
        layers=layers,
        n_heads=n_heads,
        values=tuple(tuple(p.value for p in row) for row in points),
        low=tuple(tuple(p.low for p in row) for row in points),
        high=tuple(tuple(p.high for p in row) for row in points),
        reason=None if measured else first_reason([p for row in points for p in row]),
    )


def first_reason(points: Sequence[Point]) -> str:
    """Return why the first point that was not measured was not."""
    return next((p.reason for p in points if p.reason), "no reason was recorded")
