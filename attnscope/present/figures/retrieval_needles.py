"""Needle accuracy, depth by length."""

from __future__ import annotations

import plotly.graph_objects as go

from ..style import SEQUENTIAL, THEMES, ThemeName
from ..views.points import Point
from ..views.retrieval_needles import NeedleGrid
from ..wording import percent
from ._layout import axis, layout, plain


def needle_heatmap(grid: NeedleGrid, theme: ThemeName = "light") -> go.Figure:
    """Draw one row a depth and one column a length; a cell without needles stays empty."""
    colours = THEMES[theme]
    lengths, depths = list(range(len(grid.lengths))), list(range(len(grid.depths)))
    wide = len(lengths) <= 12
    figure = go.Figure(
        go.Heatmap(
            z=[[cell.value for cell in row] for row in grid.cells],
            customdata=[
                [f"{length:,} tokens, depth {percent(depth)}: {_told(cell)}" for length, cell in zip(
                    grid.lengths, row, strict=True)]
                for depth, row in zip(grid.depths, grid.cells, strict=True)
            ],
            zmin=0,
            zmax=1,
            colorscale=[[i / 5, colour] for i, colour in enumerate(SEQUENTIAL[theme])],
            colorbar={
                "title": {"text": "needles answered", "side": "right", "font": {"color": colours.muted}},
                "tickfont": {"color": colours.muted},
                "tickformat": ".0%",
                "outlinewidth": 0,
                "thickness": 14,
            },
            hoverongaps=False,
            hovertemplate="%{customdata}<extra></extra>",
            texttemplate="%{z:.0%}" if wide else "",
            textfont={"size": 12},
            xgap=2,
            ygap=2,
        )
    )  # fmt: skip
    figure.update_layout(
        **layout(theme, height=needles_height(len(depths)), plot_bgcolor=colours.sunken),
        xaxis=axis(
            theme,
            "length of the prompt, tokens",
            showgrid=False,
            range=[-0.5, len(lengths) - 0.5],
            tickmode="array",
            tickvals=lengths[:: max(1, -(-len(lengths) // 16))],
            ticktext=[f"{length:,}" for length in grid.lengths][:: max(1, -(-len(lengths) // 16))],
        ),
        yaxis=axis(
            theme,
            "depth of the needle",
            showgrid=False,
            range=[len(depths) - 0.5, -0.5],
            tickmode="array",
            tickvals=depths,
            ticktext=[percent(round(depth, 3)) for depth in grid.depths],
        ),
    )
    return figure


def needles_height(rows: int) -> int:
    """Return the figure's height in pixels."""
    return 110 + max(140, min(36 * rows, max(420, 18 * rows)))


def _told(cell: Point) -> str:
    if cell.value is None:
        return plain(cell.reason or "not measured")
    interval = "" if cell.low is None or cell.high is None else f" [{percent(cell.low)}, {percent(cell.high)}]"
    return f"{percent(cell.value)}{interval} of {cell.n} needle{'s' if cell.n != 1 else ''}"
