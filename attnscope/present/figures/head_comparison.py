"""A scatter plot of two sources of head scores, the heads of both sets marked."""

from __future__ import annotations

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.head_comparison import ScatterView
from ._layout import axis, layout, plain

_SYMBOLS = ("circle", "triangle-right", "triangle-up", "diamond")


def comparison_scatter(view: ScatterView, theme: ThemeName = "light") -> go.Figure:
    """Draw one mark a head; its shape and colour say in which sets it is.

    Raises:
        ValueError: no head has both scores.
    """
    if not any(group.heads for group in view.groups):
        raise ValueError("comparison_scatter needs at least one head with both scores")
    colours = THEMES[theme]
    marks = zip(_SYMBOLS, (colours.second, colours.accent, colours.text, colours.strong), (6, 10, 10, 11), strict=True)
    figure = go.Figure(
        [
            go.Scatter(
                x=list(group.x),
                y=list(group.y),
                name=f"{group.name} ({len(group.heads)})",
                mode="markers",
                marker={"symbol": symbol, "size": size, "color": colour, "opacity": 0.8},
                customdata=list(group.heads),
                hovertemplate="%{customdata}: %{x:.4~g}, %{y:.4~g}<extra></extra>",
            )
            for group, (symbol, colour, size) in zip(view.groups, marks, strict=True)
        ]
    )
    figure.update_layout(
        **layout(theme, height=620, showlegend=True),
        xaxis=axis(theme, plain(view.x_title)),
        yaxis=axis(theme, plain(view.y_title)),
    )
    return figure
