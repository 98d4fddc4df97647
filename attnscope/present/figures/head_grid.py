"""The head grid, coloured by the most specific label, with a mark in every cell."""

from __future__ import annotations

import plotly.graph_objects as go

from ..style import LABEL_STYLES, THEMES, ThemeName
from ..views.heads import HeadGrid
from ..views.labels import SPECIFICITY
from ._layout import axis, layer_ticks, layout, plain


def head_grid_figure(grid: HeadGrid, theme: ThemeName = "light") -> go.Figure:
    """Draw layer × head; one legend entry a label, which a click hides."""
    figure = go.Figure()
    side = _side(grid)
    rows = {layer: index for index, layer in enumerate(grid.layers)}
    for label in SPECIFICITY:
        cells = [cell for cell in grid.cells if cell.primary == label]
        if not cells:
            continue
        style = LABEL_STYLES[label]
        figure.add_trace(
            go.Scatter(
                x=[cell.head for cell in cells],
                y=[rows[cell.layer] for cell in cells],
                mode="markers+text" if side >= 18 else "markers",
                name=f"{style.title} ({len(cells)})",
                text=[cell.mark for cell in cells],
                textfont={"size": 11 if side < 30 else 13, "color": style.ink(theme)},
                marker={
                    "symbol": "square",
                    "size": side,
                    "color": style.fill(theme),
                    "line": {"width": 1, "color": THEMES[theme].surface},
                },
                customdata=[cell.name for cell in cells],
                hovertext=["<br>".join(map(plain, cell.hover)) for cell in cells],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    n_layers = len(grid.layers)
    ticks = layer_ticks(grid.layers)
    ticks["tickvals"] = [rows[layer] for layer in ticks["tickvals"]]
    figure.update_layout(
        **layout(theme, height=120 + n_layers * (side + 6), legend={"orientation": "h", "y": -0.02, "yanchor": "top"}),
        xaxis=axis(
            theme,
            "query head",
            side="top",
            showgrid=False,
            range=[-0.6, grid.n_heads - 0.4],
            **layer_ticks(tuple(range(grid.n_heads)), 32),
        ),
        yaxis=axis(theme, "layer", showgrid=False, range=[n_layers - 0.4, -0.6], **ticks),
    )
    figure.layout.margin.t = 60
    return figure


def _side(grid: HeadGrid) -> int:
    """Cell size in pixels that fits a width of about 1100."""
    return max(8, min(38, 1000 // grid.n_heads - 4))
