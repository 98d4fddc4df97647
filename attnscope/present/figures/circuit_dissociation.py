"""Double dissociation: what each task loses without each circuit, every random draw beside it."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..style import THEMES, ThemeName
from ..views.circuit_tests import DissociationView, DropBar
from ..views.points import Point
from ..wording import points
from ._layout import axis, layout, plain
from ._points import error_bars
from ._tasks import nth, task_colours

COLUMNS = 2


def dissociation_bars(views: Sequence[DissociationView], theme: ThemeName = "light") -> go.Figure:
    """Draw one plot a level: a group of two bars for each circuit, one bar a task, and the draws of its control.

    Raises:
        ValueError: no dissociation was measured.
    """
    if not views:
        raise ValueError("dissociation_bars needs at least one dissociation")
    columns = min(COLUMNS, len(views))
    rows = -(-len(views) // columns)
    titles = [plain(view.title.split(", ")[0]) for view in views]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.1, vertical_spacing=0.3 / rows, shared_yaxes=True
    )
    figure.update_layout(**layout(theme, height=dissociation_height(views), showlegend=True, barmode="group"))
    tasks = list(dict.fromkeys(bar.task for view in views for bar in view.bars))
    for n, view in enumerate(views):
        row, column = n // columns + 1, n % columns + 1
        for i, task in enumerate(tasks):
            own = [bar for bar in view.bars if bar.task == task]
            if not own:
                continue
            offset = 0.42 * (i - (len(tasks) - 1) / 2)
            for trace in _traces(view, own, offset, task, nth(task_colours(theme), i), theme):
                trace.update(showlegend=n == 0 and (trace.legendgroup != "draws" or i == 0))
                figure.add_trace(trace, row, column)
        ticks = {
            "tickmode": "array",
            "tickvals": [0, 1],
            "ticktext": [plain(f"{side.circuit} circuit") for side in view.sides],
            "range": [-0.55, 1.55],
        }
        figure.update_xaxes(axis(theme, "ablated", showgrid=False, **ticks), row=row, col=column)
        label = "points of accuracy lost" if column == 1 else ""
        figure.update_yaxes(axis(theme, label), row=row, col=column)
    figure.add_hline(y=0, line={"color": THEMES[theme].muted, "width": 1})
    figure.update_annotations(font={"size": 14, "color": THEMES[theme].text})
    figure.layout.margin.t, figure.layout.margin.b = 44, 84
    figure.layout.legend.update(y=-48 / max(1, dissociation_height(views) - 128), yanchor="top")
    return figure


def dissociation_height(views: Sequence[DissociationView]) -> int:
    """Return the figure's height in pixels."""
    return 70 + 330 * -(-len(views) // COLUMNS)


def _traces(
    view: DissociationView, bars: Sequence[DropBar], offset: float, task: str, colour: str, theme: ThemeName
) -> list[go.Bar | go.Scatter]:
    sides = [side.circuit for side in view.sides]
    at = [sides.index(bar.circuit) + offset for bar in bars]
    hundred = [_points(bar.drop) for bar in bars]
    draws = [(x + 0.165, 100 * draw) for x, bar in zip(at, bars, strict=True) for draw in bar.draws]
    ink = THEMES[theme].text
    return [
        go.Bar(
            x=at,
            y=[100 * (bar.drop.value or 0.0) for bar in bars],
            width=0.24,
            name=f"accuracy on {plain(task)}",
            legendgroup=task,
            marker={"color": colour},
            error_y=error_bars(hundred, ink, 6),
            customdata=[_hover(bar) for bar in bars],
            hovertemplate="%{customdata}<extra></extra>",
        ),
        go.Scatter(
            x=[x for x, _ in draws],
            y=[y for _, y in draws],
            name="random others, one mark a draw",
            legendgroup="draws",
            legendrank=2000,
            mode="markers",
            marker={"symbol": "line-ew-open", "size": 9, "color": ink, "line": {"width": 1.6, "color": ink}},
            hovertemplate="random others, one draw: %{y:.1f} points<extra></extra>",
        ),
    ]


def _points(item: Point) -> Point:
    value, low, high = (None if v is None else 100 * v for v in (item.value, item.low, item.high))
    return Point(value, low, high, item.n)


def _hover(bar: DropBar) -> str:
    item = bar.drop
    interval = "" if item.low is None or item.high is None else f" [{points(item.low)}, {points(item.high)}]"
    words = plain(f"without the {bar.circuit} circuit, {bar.task} loses ")
    return f"{words}{points(item.value)}{interval} points, {item.n} prompts"
