"""Causal checks as bars with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..style import LABEL_STYLES, THEMES, ThemeName
from ..views.causal import Bar, CausalView
from ..wording import number
from ._layout import axis, layout, plain


def causal_bars(checks: Sequence[CausalView], theme: ThemeName = "light") -> go.Figure:
    """Draw one group of three bars a check: untouched, ablated, as many random heads ablated.

    Raises:
        ValueError: no checks were given.
    """
    if not checks:
        raise ValueError("causal_bars needs at least one check")
    columns = min(3, len(checks))
    rows = -(-len(checks) // columns)
    colours = THEMES[theme]
    titles = [f"{LABEL_STYLES[c.label].title}: {len(c.heads)} head{'s' if len(c.heads) > 1 else ''}" for c in checks]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.26 / columns, vertical_spacing=0.3 / rows
    )
    figure.update_layout(**layout(theme, height=60 + 230 * rows, showlegend=False))
    for i, check in enumerate(checks):
        row, column = i // columns + 1, i % columns + 1
        figure.add_trace(
            go.Bar(
                x=[bar.name for bar in check.bars],
                y=[bar.value for bar in check.bars],
                error_y=_errors(check.bars, colours.text),
                width=0.5,
                marker={"color": [colours.second, colours.strong, colours.accent]},
                customdata=[_hover(bar) for bar in check.bars],
                hovertemplate="%{x}: %{customdata}<extra></extra>",
            ),
            row,
            column,
        )
        unit = "" if check.units == "1" else f", {check.units}"
        figure.update_xaxes(axis(theme, "", showgrid=False), row=row, col=column)
        figure.update_yaxes(axis(theme, _wrapped(check.metric + unit), nticks=6, **_range(check)), row=row, col=column)
    figure.update_annotations(font={"size": 14, "color": colours.text})
    figure.layout.margin.t, figure.layout.margin.b = 44, 32
    return figure


def _errors(bars: Sequence[Bar], colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if bar.high is None else max(0.0, bar.high - bar.value) for bar in bars],
        "arrayminus": [0.0 if bar.low is None else max(0.0, bar.value - bar.low) for bar in bars],
        "color": colour,
        "thickness": 1.5,
        "width": 6,
    }


def _hover(bar: Bar) -> str:
    interval = "" if bar.low is None else f" [{number(bar.low)}, {number(bar.high)}]"
    return f"{number(bar.value)}{interval}, {bar.n} prompts"


def _range(check: CausalView) -> dict[str, object]:
    top = max(bar.value if bar.high is None else max(bar.value, bar.high) for bar in check.bars)
    return {"range": [0, 1.06]} if check.units == "1" and 0.4 < top <= 1 else {"rangemode": "tozero"}


def _wrapped(text: str, width: int = 28) -> str:
    """Break a long axis title over at most two lines."""
    lines = textwrap.wrap(text, width, max_lines=2, placeholder="…")
    return "<br>".join(map(plain, lines))
