"""Who writes each level, and what follows from the norm of the write."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..style import THEMES, ThemeName
from ..views.sink_writes import WriterView, WriteView
from ..wording import number
from ._layout import axis, layout, log_ticks


def writer_bars(views: Sequence[WriterView], theme: ThemeName = "light") -> go.Figure:
    """Draw signed contributions by module, one plot a level; the bars of a plot sum to the norm.

    Raises:
        ValueError: no levels were given.
    """
    if not views:
        raise ValueError("writer_bars needs at least one level")
    columns, colours = min(3, len(views)), THEMES[theme]
    rows = -(-len(views) // columns)
    titles = [f"{view.level}: sum {number(view.norm)}" for view in views]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.34 / columns, vertical_spacing=0.3 / rows
    )
    figure.update_layout(**layout(theme, height=writers_height(views), showlegend=False))
    for i, view in enumerate(views):
        row, column = i // columns + 1, i % columns + 1
        bars = go.Bar(
            y=list(view.modules),
            x=list(view.along),
            orientation="h",
            width=0.62,
            marker={"color": [colours.accent if value >= 0 else colours.strong for value in view.along]},
            text=[number(value) for value in view.along],
            textposition="outside",
            textfont={"color": colours.text, "size": 12},
            cliponaxis=False,
            customdata=[value / view.norm if view.norm else None for value in view.along],
            hovertemplate="%{y}: %{x:.3~g}, %{customdata:.1%} of the norm<extra></extra>",
        )
        figure.add_trace(bars, row, column)
        low, high = min(0.0, *view.along), max(0.0, *view.along)
        space = 0.22 * (high - low or 1.0)
        figure.update_xaxes(
            axis(
                theme,
                "projection on the sink's direction",
                range=[low - (space if low < 0 else 0), high + space],
                nticks=5,
                zeroline=True,
                zerolinecolor=colours.muted,
            ),
            row=row,
            col=column,
        )
        title = "module" if column == 1 else ""
        figure.update_yaxes(
            axis(theme, title, autorange="reversed", type="category", showgrid=False), row=row, col=column
        )
    figure.update_annotations(font={"size": 14, "color": colours.text})
    figure.layout.margin.t = 44
    return figure


def writers_height(views: Sequence[WriterView]) -> int:
    """Return the figure's height in pixels."""
    rows = -(-len(views) // min(3, len(views)))
    return rows * (150 + 30 * max(len(view.modules) for view in views))


def write_curves(views: Sequence[WriteView], theme: ThemeName = "light") -> go.Figure:
    """Draw attention share, lifetime and loss over the norm that a rescaled write leaves, one line a level.

    Raises:
        ValueError: no rescaling was measured.
    """
    held = [view for view in views if view.curve]
    if not held:
        raise ValueError("write_curves needs at least one rescaled write")
    colours = THEMES[theme]
    looks = (
        (colours.strong, "circle"),
        (colours.accent, "square"),
        (colours.text, "diamond"),
        (colours.second, "cross"),
        (colours.muted, "x"),
    )
    norms = [point.norm for view in held for point in view.curve]
    wide = min(norms) > 0 and max(norms) > 50 * min(norms)
    scale = {"type": "log", **log_ticks(norms)} if wide else {"rangemode": "tozero"}
    title = "norm of the sink, log scale" if wide else "norm of the sink"
    parts = (
        ("share", "Attention share", "share of a query's attention", ".0%"),
        ("lifetime", "Lifetime", "blocks", ""),
        ("loss", "Loss", "nats a token", ""),
    )
    figure = make_subplots(1, 3, subplot_titles=[title for _, title, _, _ in parts], horizontal_spacing=0.09)
    figure.update_layout(**layout(theme, height=380, showlegend=True))
    for column, (name, _, unit, form) in enumerate(parts, 1):
        for i, view in enumerate(held):
            colour, symbol = looks[i % len(looks)]
            line = go.Scatter(
                x=[point.norm for point in view.curve],
                y=[getattr(point, name) for point in view.curve],
                name=f"{view.level} ({view.module})",
                legendgroup=str(i),
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": colour, "width": 2.5},
                marker={"color": colour, "size": 8, "symbol": symbol},
                customdata=[point.factor for point in view.curve],
                hovertemplate="write × %{customdata:g}: norm %{x:.3~g}, %{y:.3~g}<extra></extra>",
            )
            figure.add_trace(line, 1, column)
        figure.update_xaxes(axis(theme, title, showgrid=False, **scale), row=1, col=column)
        zero = {} if name == "loss" else {"rangemode": "tozero"}
        figure.update_yaxes(axis(theme, unit, tickformat=form, nticks=6, **zero), row=1, col=column)
    figure.update_annotations(font={"size": 14, "color": colours.text})
    figure.layout.margin.t = 44
    figure.layout.legend.update(y=-0.24, yanchor="top")
    figure.layout.margin.b = 96
    return figure
