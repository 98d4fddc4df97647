"""How heads use sinks, and how the primary sink weakens where secondary sinks appear."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.sink_report import SinkReport
from .points import Measure, Point, point, point_grid
from .scores import ScoreGrid

SERVICES = {
    "dormant": Measure("Dormant", "fraction of queries with most of their attention on sinks"),
    "primary_share": Measure("On primary sinks", "share of a query's attention on primary sinks"),
    "secondary_share": Measure("On secondary sinks", "share of a query's attention on secondary sinks"),
}
"""Measurements of core.sink_report.HeadService."""


@dataclass(frozen=True)
class WeakeningRow:
    """Primary attention share of one layer, 0..1, in prompts with and without secondary sinks there."""

    layer: int
    with_secondary: Point
    without_secondary: Point


def service_grids(report: SinkReport) -> list[ScoreGrid]:
    """Return the layer × head grids of dormancy and of attention on sinks; none where no head was measured."""
    if not report.heads:
        return []
    grids = [
        point_grid(name, words, {(h.layer, h.head): getattr(h, name) for h in report.heads}, report.model.n_heads)
        for name, words in SERVICES.items()
    ]
    return sorted(grids, key=lambda grid: not grid.measured)


def weakening_rows(report: SinkReport) -> list[WeakeningRow]:
    """Return one row a layer, in order."""
    rows = [WeakeningRow(w.layer, point(w.with_secondary), point(w.without_secondary)) for w in report.weakening]
    return sorted(rows, key=lambda row: row.layer)
