"""Effects of units: recall against reasoning as a scatter, the largest with intervals, and blocks in order of depth."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..style import THEMES, ThemeName
from ..views.circuit_units import UnitLine, UnitScatter
from ._layout import axis, layout, plain
from ._points import error_bars, told
from ._tasks import SYMBOLS, nth, task_colours

SCATTER_HEIGHT, BLOCKS_HEIGHT = 560, 400
MOST_BARS = 64
"""Units up to which the scatter of a report without circuits shows intervals."""


def unit_scatter_figure(view: UnitScatter, theme: ThemeName = "light") -> go.Figure:
    """Draw one mark a unit at its effects on two tasks; those of the circuits are coloured and named."""
    colours = THEMES[theme]
    blue, rust = task_colours(theme)[:2]
    marks = (("circle", colours.second, 7), ("circle", blue, 11), ("diamond", rust, 12), ("square", colours.text, 11))
    named, chosen = view.named, any(lines for _, lines in view.groups[1:])
    small = not chosen and len(view.groups[0][1]) <= MOST_BARS
    marks = marks if chosen else (("circle", blue, 10), *marks[1:])
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    for i, ((title, lines), (symbol, colour, size)) in enumerate(zip(view.groups, marks, strict=True)):
        if not lines:
            continue
        points = [[line.drops[task].point for line in lines] for task in view.tasks]
        bars = {
            f"error_{name}": error_bars(own, colour, 3) for name, own in zip("xy", points, strict=True) if i or small
        }
        figure.add_trace(
            go.Scatter(
                x=[point.value for point in points[0]],
                y=[point.value for point in points[1]],
                name=f"{plain(title)} ({len(lines)})",
                mode="markers+text",
                text=[plain(line.name) if line.name in named else "" for line in lines],
                textposition=[_beside(line, view) for line in lines],
                textfont={"size": 12, "color": colours.text},
                marker={"symbol": symbol, "size": size, "color": colour, "line": {"width": 0}},
                opacity=1.0 if i or not chosen else 0.75,
                customdata=[_hover(line, view.tasks) for line in lines],
                hovertemplate="%{customdata}<extra></extra>",
                **bars,
            )
        )
    titles = [plain(f"effect on {task}: drop of {view.metric}") for task in view.tasks]
    figure.update_layout(
        **layout(theme, height=SCATTER_HEIGHT, showlegend=True),
        xaxis=axis(theme, titles[0]),
        yaxis=axis(theme, titles[1]),
    )
    return figure


def unit_dots(lines: Sequence[UnitLine], metric: str, theme: ThemeName = "light") -> go.Figure:
    """Draw one row a unit: its effect on every task with its interval.

    Raises:
        ValueError: no units were given.
    """
    if not lines:
        raise ValueError("unit_dots needs at least one unit")
    colours = THEMES[theme]
    tasks = list(lines[0].drops)
    figure = go.Figure()
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    for i, task in enumerate(tasks):
        held = [(y, line) for y, line in enumerate(lines) if line.drops[task].point.value is not None]
        points = [line.drops[task].point for _, line in held]
        colour = nth(task_colours(theme), i)
        figure.add_trace(
            go.Scatter(
                x=[point.value for point in points],
                y=[y + 0.26 * (i - (len(tasks) - 1) / 2) for y, _ in held],
                name=plain(task),
                mode="markers",
                marker={"symbol": nth(SYMBOLS, i), "size": 9, "color": colour},
                error_x=error_bars(points, colour),
                customdata=[_hover(line, (task,)) for _, line in held],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    figure.update_layout(
        **layout(theme, height=unit_dots_height(len(lines)), showlegend=len(tasks) > 1),
        xaxis=axis(theme, plain(f"drop of {metric}")),
        yaxis=axis(
            theme,
            "",
            range=[len(lines) - 0.4, -0.6],
            tickmode="array",
            tickvals=list(range(len(lines))),
            ticktext=[plain(line.name) for line in lines],
            showgrid=False,
        ),
    )
    return figure


def unit_dots_height(n: int) -> int:
    """Return the figure's height in pixels."""
    return 120 + max(120, 27 * n)


def block_effects(lines: Sequence[UnitLine], metric: str, theme: ThemeName = "light") -> go.Figure:
    """Draw the effect of each block's attention and of its MLP, over depth, one line a task.

    Raises:
        ValueError: no units were given.
    """
    if not lines:
        raise ValueError("block_effects needs at least one block")
    sides = [side for side in ("attention", "mlp") if any(line.module == side for line in lines)]
    titles = [{"attention": "Attention", "mlp": "MLP"}[side] for side in sides]
    figure = make_subplots(1, len(sides), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.05)
    figure.update_layout(**layout(theme, height=BLOCKS_HEIGHT, showlegend=len(lines[0].drops) > 1))
    for column, side in enumerate(sides, 1):
        own = sorted((line for line in lines if line.module == side), key=lambda line: line.layer)
        for i, task in enumerate(lines[0].drops):
            held = [line for line in own if line.drops[task].point.value is not None]
            points, colour = [line.drops[task].point for line in held], nth(task_colours(theme), i)
            trace = go.Scatter(
                x=[line.layer for line in held],
                y=[point.value for point in points],
                name=plain(task),
                legendgroup=str(i),
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"symbol": nth(SYMBOLS, i), "size": 9, "color": colour},
                error_y=error_bars(points, colour),
                customdata=[_hover(line, (task,)) for line in held],
                hovertemplate="%{customdata}<extra></extra>",
            )
            figure.add_trace(trace, 1, column)
        figure.update_xaxes(axis(theme, "block", showgrid=False, dtick=max(1, len(own) // 16)), row=1, col=column)
        label = plain(f"drop of {metric}") if column == 1 else ""
        figure.update_yaxes(axis(theme, label), row=1, col=column)
    figure.add_hline(y=0, line={"color": THEMES[theme].muted, "width": 1, "dash": "dot"})
    figure.update_annotations(font={"size": 14, "color": THEMES[theme].text})
    figure.layout.margin.t = 64
    figure.layout.legend.update(y=1.12)
    return figure


def _beside(line: UnitLine, view: UnitScatter) -> str:
    x, y = ((line.drops[task].point.value or 0.0) for task in view.tasks)
    return "top center" if x >= y else "middle right"


def _hover(line: UnitLine, tasks: Sequence[str]) -> str:
    rows = [f"<b>{plain(line.name)}</b>"]
    for task in tasks:
        drop = line.drops[task]
        q = "" if drop.q is None else f", q = {drop.q:.2g}"
        rows.append(f"{plain(task)}: {told(drop.point)}{q}")
    if line.chosen:
        rows.append(plain(f"in the circuit of {' and '.join(line.chosen)}"))
    return "<br>".join(rows)
