"""The residual stream: norms by block and outlier dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.residual import OutlierRow, ResidualNorms
from ._layout import axis, layout, log_ticks


def residual_norm_lines(norms: ResidualNorms, theme: ThemeName = "light") -> go.Figure:
    """Draw the norm of the first token and of the others by depth, on a log axis."""
    colours = THEMES[theme]
    names = ["in" if depth < 0 else str(depth) for depth in norms.depths]
    series = (
        ("first token", norms.first, colours.strong, "circle"),
        ("other tokens, mean", norms.others, colours.accent, "square"),
    )
    figure = go.Figure(
        [
            go.Scatter(
                x=list(range(len(names))),
                y=list(values),
                name=name,
                mode="lines+markers",
                line={"color": colour, "width": 2.5},
                marker={"color": colour, "size": 7, "symbol": symbol},
                customdata=names,
                hovertemplate=f"{name}, block %{{customdata}}: %{{y:.3~g}}<extra></extra>",
            )
            for name, values, colour, symbol in series
        ]
    )
    step = max(1, len(names) // 24)
    places = list(range(0, len(names), step))
    figure.update_layout(
        **layout(theme, height=340),
        xaxis=axis(
            theme,
            "output of block (in: input of block 0)",
            tickmode="array",
            tickvals=places,
            ticktext=[names[i] for i in places],
            showgrid=False,
        ),
        yaxis=axis(theme, "ℓ₂ norm, log scale", type="log", **log_ticks((*norms.first, *norms.others))),
    )
    return figure


def outlier_bars(rows: Sequence[OutlierRow], theme: ThemeName = "light") -> go.Figure:
    """Draw outlier dimensions, the largest first; the line at 1 is the median dimension."""
    colours = THEMES[theme]
    figure = go.Figure(
        go.Bar(
            x=[f"{row.dimension}" for row in rows],
            y=[row.ratio for row in rows],
            customdata=[row.mean_abs for row in rows],
            marker={"color": colours.accent},
            width=0.6 if len(rows) > 4 else 0.16 * max(1, len(rows)),
            text=[f"{row.ratio:.1f} ×" for row in rows],
            textposition="outside",
            textfont={"color": colours.text},
            cliponaxis=False,
            hovertemplate="dimension %{x}: mean |x| %{customdata:.3~g}, %{y:.1f} × the median<extra></extra>",
        )
    )
    figure.add_hline(y=1, line={"color": colours.muted, "width": 1, "dash": "dot"})
    figure.update_layout(
        **layout(theme, height=340, showlegend=False),
        xaxis=axis(theme, "residual-stream dimension", type="category", showgrid=False),
        yaxis=axis(theme, "mean |x| ÷ median dimension's", rangemode="tozero"),
    )
    return figure
