"""Residual norm and direction by block: levels of sinks beside all other tokens."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.sink_traces import TraceRow
from ._layout import axis, layer_ticks, layout, log_ticks
from .sink_levels import COLOURS, SYMBOLS


def trace_norm_lines(rows: Sequence[TraceRow], theme: ThemeName = "light") -> go.Figure:
    """Draw median residual norms by block, on a log axis.

    Raises:
        ValueError: no traces were given.
    """
    if not rows:
        raise ValueError("trace_norm_lines needs at least one trace")
    figure = go.Figure([_line(row, i, row.norm, ":.3~g", theme) for i, row in enumerate(rows)])
    values = [value for row in rows for value in row.norm]
    return _finish(figure, rows, theme, "ℓ₂ norm, median, log scale", type="log", **log_ticks(values))


def trace_cosine_lines(rows: Sequence[TraceRow], theme: ThemeName = "light") -> go.Figure:
    """Draw median |cosine| to the primary sink by block.

    Raises:
        ValueError: no prompt has a primary sink.
    """
    held = [(i, row) for i, row in enumerate(rows) if any(value is not None for value in row.cosine)]
    if not held:
        raise ValueError("trace_cosine_lines needs at least one trace with a primary sink")
    figure = go.Figure([_line(row, i, row.cosine, ":.3f", theme) for i, row in held])
    return _finish(figure, rows, theme, "|cosine| to the primary sink, median", range=[-0.03, 1.03])


def _line(row: TraceRow, index: int, values: Sequence[float | None], form: str, theme: ThemeName) -> go.Scatter:
    shade = getattr(THEMES[theme], COLOURS[row.kind]) if row.kind is not None else THEMES[theme].muted
    return go.Scatter(
        x=list(range(len(values))),
        y=list(values),
        name=row.name,
        mode="lines+markers",
        line={"color": shade, "width": 2.5, "dash": "dot" if row.kind is None else "solid"},
        marker={"color": shade, "size": 7, "symbol": SYMBOLS[index % len(SYMBOLS)]},
        hovertemplate=f"{row.name} ({row.n:,} positions), block %{{x}}: %{{y{form}}}<extra></extra>",
    )


def _finish(figure: go.Figure, rows: Sequence[TraceRow], theme: ThemeName, title: str, **extra: object) -> go.Figure:
    blocks = tuple(range(max(len(row.norm) for row in rows)))
    figure.update_layout(
        **layout(theme, height=340, showlegend=True),
        xaxis=axis(theme, "output of block", showgrid=False, tickangle=0, **layer_ticks(blocks, 16)),
        yaxis=axis(theme, title, **extra),
    )
    return figure
