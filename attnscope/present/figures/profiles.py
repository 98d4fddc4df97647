"""Distance profiles of labelled heads, as small multiples."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..style import LABEL_STYLES, THEMES, ThemeName
from ..views.profiles import DistanceProfile
from ._layout import axis, layout


def distance_profiles(profiles: Sequence[DistanceProfile], theme: ThemeName = "light", columns: int = 4) -> go.Figure:
    """Draw attention by distance, one small plot a head, all on the same axes.

    Raises:
        ValueError: no profiles were given.
    """
    if not profiles:
        raise ValueError("distance_profiles needs at least one profile")
    columns = min(columns, len(profiles))
    rows = -(-len(profiles) // columns)
    titles = [f"{item.name} · {LABEL_STYLES[item.label].title}" for item in profiles]
    figure = make_subplots(
        rows, columns, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=0.36 / rows
    )
    figure.update_layout(**layout(theme, height=90 + 180 * rows, showlegend=False, bargap=0.12))
    top = min(1.0, 1.08 * max(max(item.mass) for item in profiles))
    for i, item in enumerate(profiles):
        row, column = i // columns + 1, i % columns + 1
        figure.add_trace(
            go.Bar(
                x=list(item.bins),
                y=list(item.mass),
                marker={"color": LABEL_STYLES[item.label].fill(theme)},
                hovertemplate="distance %{x} tokens: %{y:.1%}<extra>" + item.name + "</extra>",
            ),
            row,
            column,
        )
        below = i + columns >= len(profiles)
        figure.update_xaxes(
            axis(
                theme, "distance, tokens" if below else "", type="category", showgrid=False, tickangle=0, **_ticks(item)
            ),
            row=row,
            col=column,
        )
        figure.update_yaxes(
            axis(theme, "attention" if column == 1 else "", range=[0, top], tickformat=".0%", nticks=4),
            row=row,
            col=column,
        )
    figure.update_annotations(font={"size": 13, "color": THEMES[theme].text})
    return figure


def _ticks(item: DistanceProfile) -> dict[str, object]:
    """Label every second bin or fewer, by its lower edge."""
    step = max(2, -(-len(item.edges) // 6))
    places = list(range(0, len(item.edges), step))
    return {"tickmode": "array", "tickvals": places, "ticktext": [f"{item.edges[i]:,}" for i in places]}
