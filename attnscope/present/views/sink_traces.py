"""Norm and direction of the residual stream through the model: levels of sinks beside all other tokens."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.sink_report import SinkReport
from .sink_levels import level_rows


@dataclass(frozen=True)
class TraceRow:
    """One line.

    Attributes:
        name: of the level, or `other tokens`.
        kind: of the level; None for other tokens.
        n: positions.
        norm: median l2 norm of each block's output.
        cosine: median |cosine| to the primary sink, 0..1; None without one.
    """

    name: str
    kind: str | None
    n: int
    norm: tuple[float, ...]
    cosine: tuple[float | None, ...]


def trace_rows(report: SinkReport, most: int = 6) -> list[TraceRow]:
    """Return the levels with most sinks, in order, and the other tokens last.

    Args:
        report: the report.
        most: levels at most.
    """
    levels = {row.index: row for row in level_rows(report)}
    fullest = sorted((t for t in report.traces if t.level is not None), key=lambda trace: -trace.n)[:most]
    kept = {trace.level for trace in fullest} | {None}
    rows = []
    for trace in report.traces:
        if trace.level in kept:
            level = None if trace.level is None else levels[trace.level]
            name, kind = ("other tokens", None) if level is None else (level.name, level.kind)
            rows.append(TraceRow(name, kind, trace.n, trace.norm, trace.cosine))
    return rows
