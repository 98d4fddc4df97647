"""Layer × position map of one prompt's sinks, with a menu to choose the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ..style import SEQUENTIAL, THEMES, ThemeName
from ..views.sink_map import SinkColumn, SinkMap
from ._layout import axis, layer_ticks, layout, plain


def sink_map_figure(maps: Sequence[SinkMap], theme: ThemeName = "light") -> go.Figure:
    """Draw the first map; the menu switches to the others.

    Raises:
        ValueError: no maps were given.
    """
    if not maps:
        raise ValueError("sink_map_figure needs at least one map")
    colours, states = THEMES[theme], [_state(item) for item in maps]
    shares = [v for item in maps for column in item.columns for v in column.shares if v is not None]
    show, rows = states[0], maps[0].n_layers
    figure = go.Figure(
        [
            go.Heatmap(
                z=show["z"],
                customdata=show["customdata"],
                zmin=0,
                zmax=max(shares, default=1.0) or 1.0,
                colorscale=[[i / 5, colour] for i, colour in enumerate(SEQUENTIAL[theme])],
                colorbar={
                    "title": {"text": "attention share", "side": "right", "font": {"color": colours.muted}},
                    "tickfont": {"color": colours.muted},
                    "tickformat": ".0%",
                    "outlinewidth": 0,
                    "thickness": 14,
                },
                hoverongaps=False,
                hovertemplate="%{customdata}<br>layer %{y}: %{z:.1%} of a query's attention<extra></extra>",
                xgap=2,
                ygap=2,
                showscale=bool(shares),
            ),
            go.Scatter(
                x=show["x"],
                y=show["y"],
                text=show["text"],
                mode="markers",
                marker={
                    "symbol": "diamond",
                    "size": 9,
                    "color": colours.strong,
                    "line": {"width": 1.5, "color": colours.surface},
                },
                hovertemplate="%{text}<br>the output of block %{y} points along the primary direction<extra></extra>",
                showlegend=False,
            ),
        ]
    )
    figure.update_layout(
        **layout(theme, height=map_height(rows), plot_bgcolor=colours.sunken),
        xaxis=axis(theme, "position and token of the sink", showgrid=False, tickangle=0, **show["xaxis"]),
        yaxis=axis(theme, "layer", showgrid=False, range=[rows - 0.5, -0.5], **layer_ticks(tuple(range(rows)))),
        updatemenus=[{"buttons": [_button(item, state) for item, state in zip(maps, states, strict=True)]}],
    )
    figure.layout.margin.t, figure.layout.margin.b = 24, 72
    return figure


def map_height(rows: int) -> int:
    """Return the figure's height in pixels."""
    return 140 + max(200, min(26 * rows, max(520, 11 * rows)))


def _state(item: SinkMap) -> dict[str, Any]:
    names = [_name(column) for column in item.columns]
    marks = [(x, layer) for x, column in enumerate(item.columns) for layer in column.residual_layers]
    short = len(item.columns) <= 12
    return {
        "z": [[column.shares[layer] for column in item.columns] for layer in range(item.n_layers)],
        "customdata": [names for _ in range(item.n_layers)],
        "x": [x for x, _ in marks],
        "y": [y for _, y in marks],
        "text": [names[x] for x, _ in marks],
        "xaxis": {
            "range": [-0.5, len(item.columns) - 0.5],
            "tickmode": "array",
            "tickvals": list(range(len(item.columns))),
            "ticktext": [_tick(column, short) for column in item.columns],
        },
    }


def _tick(column: SinkColumn, token: bool) -> str:
    shown = column.token if len(column.token) <= 9 else f"{column.token[:8]}…"
    return f"{column.position}<br>{plain(shown)}" if token else str(column.position)


def _name(column: SinkColumn) -> str:
    reason = f"<br>attention not measured: {plain(column.reason)}" if column.reason else ""
    return f"position {column.position}, token {plain(column.token)}, {column.kind}{reason}"


def _button(item: SinkMap, state: dict[str, Any]) -> dict[str, Any]:
    n = len(item.columns) + item.hidden
    traces = {
        "z": [state["z"], None],
        "customdata": [state["customdata"], None],
        "x": [None, state["x"]],
        "y": [None, state["y"]],
        "text": [None, state["text"]],
    }
    return {
        "label": f"prompt {item.prompt}: {n} sink{'s' if n != 1 else ''}",
        "method": "update",
        "args": [traces, {f"xaxis.{key}": value for key, value in state["xaxis"].items()}],
    }
