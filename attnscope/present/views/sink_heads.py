"""How heads use sinks, and how the primary sink weakens where secondary sinks appear."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.report import Missing
from ...core.sink_report import Estimate, HeadService, SinkReport
from .scores import ScoreGrid

SERVICES = {
    "dormant": ("Dormant", "fraction of queries with most of their attention on sinks"),
    "primary_share": ("On primary sinks", "share of a query's attention on primary sinks"),
    "secondary_share": ("On secondary sinks", "share of a query's attention on secondary sinks"),
}
"""Measurements of core.sink_report.HeadService: title and meaning."""


@dataclass(frozen=True)
class Point:
    """A value with its interval; None where it was not measured, and then `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class WeakeningRow:
    """Primary attention share of one layer, 0..1, in prompts with and without secondary sinks there."""

    layer: int
    with_secondary: Point
    without_secondary: Point


def point(item: Estimate | Missing) -> Point:
    """Return an estimate as a point."""
    if isinstance(item, Missing):
        return Point(None, reason=item.reason)
    interval = item.interval
    return Point(item.value, interval.low if interval else None, interval.high if interval else None, item.n)


def service_grids(report: SinkReport) -> list[ScoreGrid]:
    """Return the layer × head grids of dormancy and of attention on sinks; none where no head was measured."""
    if not report.heads:
        return []
    grids = [_grid(report, name) for name in SERVICES]
    return sorted(grids, key=lambda grid: not grid.measured)


def weakening_rows(report: SinkReport) -> list[WeakeningRow]:
    """Return one row a layer, in order."""
    rows = [WeakeningRow(w.layer, point(w.with_secondary), point(w.without_secondary)) for w in report.weakening]
    return sorted(rows, key=lambda row: row.layer)


def _grid(report: SinkReport, name: str) -> ScoreGrid:
    layers = tuple(sorted({head.layer for head in report.heads}))
    n_heads = report.model.n_heads
    held: dict[tuple[int, int], HeadService] = {(head.layer, head.head): head for head in report.heads}
    absent = Missing(reason="this head is not in the report")
    points = [
        [point(getattr(held[layer, head], name) if (layer, head) in held else absent) for head in range(n_heads)]
        for layer in layers
    ]
    measured = any(p.value is not None for row in points for p in row)
    reasons = [p.reason for row in points for p in row if p.reason]
    return ScoreGrid(
        score=name,
        title=SERVICES[name][0],
        meaning=SERVICES[name][1],
        prompt_set=None,
        units="1",
        share=True,
        layers=layers,
        n_heads=n_heads,
        values=tuple(tuple(p.value for p in row) for row in points),
        low=tuple(tuple(p.low for p in row) for row in points),
        high=tuple(tuple(p.high for p in row) for row in points),
        reason=None if measured else reasons[0],
    )
