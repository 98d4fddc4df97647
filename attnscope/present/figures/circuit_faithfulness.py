"""Faithfulness over circuit size, with random circuits beside it."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.circuit_quality import FaithfulnessLine
from ..wording import number, percent
from ._layout import axis, layout, plain
from ._tasks import SYMBOLS, nth, task_colours

FAITHFULNESS_HEIGHT = 420


def faithfulness_curves(lines: Sequence[FaithfulnessLine], theme: ThemeName = "light") -> go.Figure:
    """Draw f over the share of units kept, on a log axis; dotted lines are random circuits.

    Raises:
        ValueError: no curve was measured.
    """
    if not lines:
        raise ValueError("faithfulness_curves needs at least one curve")
    colours = THEMES[theme]
    figure = go.Figure()
    for y in (0, 1):
        figure.add_hline(y=y, line={"color": colours.muted, "width": 1, "dash": "dash" if y else "dot"})
    for i, line in enumerate(lines):
        colour, symbol = nth(task_colours(theme), i), nth(SYMBOLS, i)
        figure.add_trace(_trace(line.sizes, line.values, _name(line), colour, symbol, "solid"))
        if line.control:
            figure.add_trace(
                _trace(
                    line.sizes, line.control, f"{plain(line.task)}, random circuits", colour, f"{symbol}-open", "dot"
                )
            )
    sizes = sorted({size for line in lines for size in line.sizes if size > 0})
    figure.update_layout(
        **layout(theme, height=FAITHFULNESS_HEIGHT, showlegend=True),
        xaxis=axis(
            theme,
            "share of all units kept",
            type="log",
            showgrid=False,
            tickmode="array",
            tickvals=sizes,
            ticktext=[percent(size) for size in sizes],
        ),
        yaxis=axis(theme, "faithfulness f"),
    )
    return figure


def _trace(
    sizes: Sequence[float], values: Sequence[float | None], name: str, colour: str, symbol: str, dash: str
) -> go.Scatter:
    return go.Scatter(
        x=list(sizes),
        y=list(values),
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2.2, "dash": dash},
        marker={"symbol": symbol, "size": 8, "color": colour},
        hovertemplate="%{x:.1%} kept: f = %{y:.3~f}<extra>" + name + "</extra>",
    )


def _name(line: FaithfulnessLine) -> str:
    area = "" if line.cpr is None else f" (CPR {number(line.cpr)}, CMD {number(line.cmd)})"
    return plain(f"{line.title}{area}")
