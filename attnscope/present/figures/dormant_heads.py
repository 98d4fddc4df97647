"""Head × prompt map of dormancy."""

from __future__ import annotations

import plotly.graph_objects as go

from ..style import SEQUENTIAL, THEMES, ThemeName
from ..views.dormant_heads import DormantView
from ._layout import axis, layer_ticks, layout


def dormant_map(view: DormantView, theme: ThemeName = "light") -> go.Figure:
    """Draw one row a head and one column a prompt."""
    colours, prompts = THEMES[theme], len(view.values[0])
    figure = go.Figure(
        go.Heatmap(
            z=[list(row) for row in view.values],
            y=list(view.heads),
            x=list(range(prompts)),
            zmin=0,
            zmax=1,
            colorscale=[[i / 5, colour] for i, colour in enumerate(SEQUENTIAL[theme])],
            colorbar={
                "title": {"text": "dormant queries", "side": "right", "font": {"color": colours.muted}},
                "tickfont": {"color": colours.muted},
                "tickformat": ".0%",
                "outlinewidth": 0,
                "thickness": 14,
            },
            hoverongaps=False,
            hovertemplate="%{y}, prompt %{x}: dormant on %{z:.1%} of queries<extra></extra>",
            xgap=2,
            ygap=2,
        )
    )
    figure.update_layout(
        **layout(theme, height=dormant_height(len(view.heads)), plot_bgcolor=colours.sunken),
        xaxis=axis(theme, "prompt", showgrid=False, tickangle=0, **layer_ticks(tuple(range(prompts)), 16)),
        yaxis=axis(theme, "head", autorange="reversed", type="category", showgrid=False),
    )
    return figure


def dormant_height(rows: int) -> int:
    """Return the figure's height in pixels."""
    return 110 + max(120, 24 * rows)
