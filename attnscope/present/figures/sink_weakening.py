"""The primary sink's attention share, with and without secondary sinks."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.sink_heads import Point, WeakeningRow
from ..wording import number
from ._layout import axis, layer_ticks, layout, plain


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
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [_gap(item.high, item.value) for item in points],
            "arrayminus": [_gap(item.value, item.low) for item in points],
            "color": colour,
            "thickness": 1.5,
            "width": 4,
        },
        customdata=[_hover(item) for item in points],
        hovertemplate=f"layer %{{x}}, {plain(name)}: %{{customdata}}<extra></extra>",
    )


def _gap(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else max(0.0, upper - lower)


def _hover(item: Point) -> str:
    if item.value is None:
        return f"not measured: {plain(item.reason or '')}"
    interval = "" if item.low is None or item.high is None else f" [{number(item.low)}, {number(item.high)}]"
    return f"{number(item.value)}{interval}, {item.n} prompts"
