"""A heatmap of every score, with a menu to choose one; what was not measured is crossed out, never 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ..style import DIVERGING, SEQUENTIAL, THEMES, ThemeName
from ..views.scores import ScoreGrid
from ._layout import axis, layer_ticks, layout, plain

MOST_INTERVALS = 1024
"""Heads up to which hovering shows intervals; above that they would be most of the figure."""


def score_heatmap(grids: Sequence[ScoreGrid], theme: ThemeName = "light", diverging: bool = False) -> go.Figure:
    """Draw the first score; the menu switches to the others.

    Args:
        grids: scores of the same heads.
        theme: light or dark.
        diverging: colours run from below 0 to above 0, as far on both sides.

    Raises:
        ValueError: no scores were given.
    """
    if not grids:
        raise ValueError("score_heatmap needs at least one score")
    first, colours = grids[0], THEMES[theme]
    states = [_state(grid, diverging) for grid in grids]
    colorscale = (DIVERGING if diverging else SEQUENTIAL)[theme]
    show = states[0]
    ticks = layer_ticks(tuple(range(len(first.layers))))
    ticks["ticktext"] = [str(first.layers[row]) for row in ticks["tickvals"]]
    figure = go.Figure(
        [
            go.Heatmap(
                z=show["z"],
                zmin=show["zmin"],
                zmax=show["zmax"],
                customdata=show["customdata"],
                colorscale=[[i / (len(colorscale) - 1), colour] for i, colour in enumerate(colorscale)],
                colorbar={
                    "title": {"text": show["unit"], "side": "right", "font": {"color": colours.muted}},
                    "tickfont": {"color": colours.muted},
                    "outlinewidth": 0,
                    "thickness": 14,
                },
                hoverongaps=False,
                hovertemplate="L%{customdata[0]}H%{x}: %{z:.3~f}%{customdata[1]}<extra></extra>",
                texttemplate=show["texttemplate"],
                textfont={"size": 12},
                xgap=2,
                ygap=2,
            ),
            go.Scatter(
                x=show["x"],
                y=show["y"],
                mode="markers",
                marker={"symbol": "x-thin", "size": 9, "line": {"width": 1.5, "color": colours.muted}},
                hovertemplate="not measured<extra></extra>",
                showlegend=False,
            ),
        ]
    )
    rows = len(first.layers)
    figure.update_layout(
        **layout(theme, height=heatmap_height(rows), plot_bgcolor=colours.sunken),
        xaxis=axis(
            theme,
            "query head",
            showgrid=False,
            range=[-0.5, first.n_heads - 0.5],
            **layer_ticks(tuple(range(first.n_heads)), 32),
        ),
        yaxis=axis(theme, "layer", showgrid=False, range=[rows - 0.5, -0.5], **ticks),
        annotations=_notes(first, theme),
        updatemenus=[
            {
                "buttons": [_button(grid, state, theme) for grid, state in zip(grids, states, strict=True)],
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "bgcolor": colours.surface,
                "bordercolor": colours.line,
                "font": {"color": colours.text},
            }
        ],
    )
    figure.layout.margin.t = 64
    return figure


def heatmap_height(rows: int) -> int:
    """Return the figure's height in pixels."""
    return 130 + max(170, min(30 * rows, max(560, 12 * rows)))


def _state(grid: ScoreGrid, diverging: bool) -> dict[str, Any]:
    values = [v for row in grid.values for v in row if v is not None]
    missing = [(head, y) for y, row in enumerate(grid.values) for head, v in enumerate(row) if v is None]
    small = len(grid.layers) * grid.n_heads <= MOST_INTERVALS
    top = 1.0 if grid.share else max(values, default=1.0)
    low, high = min(0.0, *values) if values else 0.0, top if top > 0 else 1.0
    if diverging:
        high = max(map(abs, values), default=1.0) or 1.0
        low = -high
    return {
        "z": [[None if v is None else float(f"{v:.4g}") for v in row] for row in grid.values],
        "customdata": [
            [[layer, _bounds(low, high) if small else ""] for low, high in zip(lows, highs, strict=True)]
            for layer, lows, highs in zip(grid.layers, grid.low, grid.high, strict=True)
        ],
        "zmin": low,
        "zmax": high,
        "x": [x for x, _ in missing],
        "y": [y for _, y in missing],
        "unit": _unit(grid),
        "texttemplate": _digits(grid, high if diverging else None),
    }


def _button(grid: ScoreGrid, state: dict[str, Any], theme: ThemeName) -> dict[str, Any]:
    return {
        "label": grid.title if grid.measured else f"{grid.title} (not measured)",
        "method": "update",
        "args": [
            {
                **{key: [state[key], None] for key in ("z", "customdata", "texttemplate")},
                "zmin": [state["zmin"], None],
                "zmax": [state["zmax"], None],
                "colorbar.title.text": [state["unit"], None],
                "x": [None, state["x"]],
                "y": [None, state["y"]],
            },
            {"annotations": _notes(grid, theme)},
        ],
    }


def _notes(grid: ScoreGrid, theme: ThemeName) -> list[dict[str, Any]]:
    if grid.measured:
        return []
    return [
        {
            "text": f"Not measured: {plain(grid.reason or '')}",
            "showarrow": False,
            "x": 0.5,
            "y": 0.5,
            "xref": "paper",
            "yref": "paper",
            "bgcolor": THEMES[theme].surface,
            "borderpad": 8,
            "font": {"size": 14, "color": THEMES[theme].text},
        }
    ]


def _unit(grid: ScoreGrid) -> str:
    units = {"1": "fraction" if grid.share else "ratio", "percent": "%", "token": "tokens", "nat": "nats", None: ""}
    return units.get(grid.units, plain(grid.units or ""))


def _digits(grid: ScoreGrid, top: float | None) -> str:
    """Return how values are written in the cells; nothing where they would not fit.

    Args:
        grid: the score.
        top: largest |value| of a diverging scale, which sets the digits of all; None writes each with its own.
    """
    if grid.n_heads > 16:
        return ""
    if top is not None:
        return f"%{{z:.{min(6, max(0, 2 - math.floor(math.log10(top))))}f}}"
    return "%{z:.2f}" if grid.share else "%{z:.3~r}"


def _bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
