"""Accuracy over heads ablated, KV heads full or circuit size: ours, random choices, and the untouched model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..style import THEMES, ThemeName
from ..views.retrieval_curves import Compared, ComparedLine
from ..wording import percent
from ._layout import axis, layout, plain
from ._points import error_bars

COLUMNS, CIRCUIT_COLUMNS = 3, 2


def ablation_curves(lines: Sequence[ComparedLine], theme: ThemeName = "light") -> go.Figure:
    """Draw accuracy over how many heads are ablated, one plot a mode.

    Raises:
        ValueError: nothing was ablated.
    """
    if not lines:
        raise ValueError("ablation_curves needs at least one step")
    counts = sorted({int(point.x) for line in lines for point in line.points})
    ticks = {"type": "log", "tickmode": "array", "tickvals": counts, "ticktext": [str(n) for n in counts]}
    return _compared(lines, theme, "heads ablated", ticks, ("highest heads", "random others", "no head ablated"))


def budget_curves(lines: Sequence[ComparedLine], theme: ThemeName = "light") -> go.Figure:
    """Draw accuracy over the share of KV heads that stay full, one plot a length.

    Raises:
        ValueError: no budget was measured.
    """
    if not lines:
        raise ValueError("budget_curves needs at least one budget")
    top = max(point.x for line in lines for point in line.points)
    ticks = {"tickformat": ".0%", "range": [-0.04 * top, 1.06 * top] if top else [-0.05, 1.05], "nticks": 6}
    return _compared(lines, theme, "KV heads full", ticks, ("retrieval heads full", "random KV heads full", "all full"))


def curves_height(lines: Sequence[ComparedLine], columns: int = COLUMNS) -> int:
    """Return the figure's height in pixels."""
    return 60 + 320 * -(-len(lines) // columns)


def circuit_curves(lines: Sequence[ComparedLine], theme: ThemeName = "light") -> go.Figure:
    """Draw accuracy over circuit size, one plot for each circuit and task measured.

    Raises:
        ValueError: no circuit was ablated.
    """
    if not lines:
        raise ValueError("circuit_curves needs at least one circuit")
    counts = sorted({int(point.x) for line in lines for point in line.points})
    ticks = {"type": "log", "tickmode": "array", "tickvals": counts, "ticktext": [str(n) for n in counts]}
    names = ("the circuit", "random others", "nothing ablated")
    return _compared(lines, theme, "units ablated", ticks, names, "accuracy", CIRCUIT_COLUMNS)


def _compared(
    lines: Sequence[ComparedLine],
    theme: ThemeName,
    title: str,
    ticks: dict[str, Any],
    names: tuple[str, str, str],
    measured: str = "needle accuracy",
    most: int = COLUMNS,
) -> go.Figure:
    columns = min(most, len(lines))
    rows = -(-len(lines) // columns)
    titles = [plain(line.title) for line in lines]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.24 / columns, vertical_spacing=0.3 / rows
    )
    figure.update_layout(**layout(theme, height=curves_height(lines, most), showlegend=True))
    for i, line in enumerate(lines):
        row, column = i // columns + 1, i % columns + 1
        for trace in _traces(line, theme, names):
            figure.add_trace(trace.update(showlegend=i == 0), row, column)
        figure.update_xaxes(axis(theme, title, showgrid=False, **ticks), row=row, col=column)
        label = measured if column == 1 else ""
        figure.update_yaxes(axis(theme, label, tickformat=".0%", range=[-0.03, 1.06]), row=row, col=column)
    figure.update_annotations(font={"size": 14, "color": THEMES[theme].text})
    figure.layout.margin.t, figure.layout.margin.b = 44, 92
    figure.layout.legend.update(y=-72 / max(1, curves_height(lines, most) - 136), yanchor="top")
    return figure


def _traces(line: ComparedLine, theme: ThemeName, names: tuple[str, str, str]) -> list[go.Scatter]:
    colours, ours, random, whole = THEMES[theme], *names
    points = line.points
    measured = [point for point in points if point.control.value is not None]
    draws = [(point.x, value) for point in points for value in point.draws]
    return [
        go.Scatter(
            x=[point.x for point in points],
            y=[point.whole for point in points],
            name=whole,
            legendgroup="whole",
            mode="lines",
            line={"color": colours.muted, "width": 1.5, "dash": "dash"},
            hovertemplate=f"{whole}: %{{y:.1%}}<extra></extra>",
        ),
        go.Scatter(
            x=[x for x, _ in draws],
            y=[value for _, value in draws],
            name=f"{random}, one mark a draw",
            legendgroup="draws",
            mode="markers",
            marker={
                "symbol": "x-thin-open",
                "size": 8,
                "color": colours.accent,
                "line": {"width": 1.4, "color": colours.accent},
            },
            hovertemplate=f"{random}, one draw: %{{y:.1%}}<extra></extra>",
        ),
        go.Scatter(
            x=[point.x for point in measured],
            y=[point.control.value for point in measured],
            name=f"{random}, mean",
            legendgroup="mean",
            mode="lines+markers",
            line={"color": colours.accent, "width": 2},
            marker={"symbol": "square-open", "size": 8, "color": colours.accent},
            error_y=error_bars([point.control for point in measured], colours.accent),
            hovertemplate=f"{random}, mean: %{{y:.1%}}<extra></extra>",
        ),
        go.Scatter(
            x=[point.x for point in points],
            y=[point.accuracy.value for point in points],
            name=ours,
            legendgroup="ours",
            mode="lines+markers",
            line={"color": colours.strong, "width": 2.5},
            marker={"symbol": "circle", "size": 9, "color": colours.strong},
            error_y=error_bars([point.accuracy for point in points], colours.strong),
            customdata=[_hover(point) for point in points],
            hovertemplate="%{customdata}<extra></extra>",
        ),
    ]


def _hover(item: Compared) -> str:
    ours = item.accuracy
    interval = "" if ours.low is None or ours.high is None else f" [{percent(ours.low)}, {percent(ours.high)}]"
    names = ", ".join(item.heads[:8]) + (f" and {len(item.heads) - 8} more" if len(item.heads) > 8 else "")
    return f"{percent(ours.value)}{interval}, {plain(item.verdict)}<br>{plain(names) or 'none'}"
