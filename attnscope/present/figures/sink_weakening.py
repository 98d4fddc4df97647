"""The primary sink's attention share, with and without secondary sinks."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.points import Point
from ..views.sink_heads import WeakeningRow
from ._layout import axis, layer_ticks, layout, plain
from ._points import error_bars, told


def weakening_lines(rows: Sequence[WeakeningRow], theme: ThemeName = "light") -> go.Figure:
    """Draw both shares by layer with their intervals.

    Raises:
        ValueError: no layers were given.
    """
    if not rows:
        raise ValueError("weakening_lines needs at least one layer")
    colours = THEMES[theme]
    series = (
        ("prompts without secondary sinks there", [row.without_secondary for row in rows], colours.accent, "circle"),
        ("prompts with secondary sinks there", [row.with_secondary for row in rows], colours.strong, "square"),
    )
    layers = [row.layer for row in rows]
    figure = go.Figure([_line(name, layers, points, colour, symbol) for name, points, colour, symbol in series])
    figure.update_layout(
        **layout(theme, height=340, showlegend=True),
        xaxis=axis(theme, "layer", showgrid=False, tickangle=0, **layer_ticks(tuple(layers), 16)),
        yaxis=axis(theme, "attention on primary sinks", tickformat=".0%", rangemode="tozero"),
    )
    return figure


def _line(name: str, layers: list[int], points: list[Point], colour: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=layers,
        y=[item.value for item in points],
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2.5},
        marker={"color": colour, "size": 8, "symbol": symbol},
        error_y=error_bars(points, colour),
        customdata=[told(item) for item in points],
        hovertemplate=f"layer %{{x}}, {plain(name)}: %{{customdata}}<extra></extra>",
    )
