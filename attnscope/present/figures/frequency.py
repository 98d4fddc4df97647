"""Frequency chunks: agreement of every chunk of every head, by wavelength, choices of keys, overlap of tasks."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import SEQUENTIAL, THEMES, ThemeName
from ..views.frequency import ChunkCurve, ChunkMap
from ..views.frequency_choices import ChoiceLine, OverlapMatrix
from ..views.sink_heads import Point
from ..wording import number
from ._layout import axis, layout, plain

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up")


def chunk_map_figure(chunks: ChunkMap, theme: ThemeName = "light") -> go.Figure:
    """Draw heads by chunks; the line marks where wavelengths exceed the prompt."""
    layers = list(chunks.first_rows.items())
    step = max(1, -(-len(layers) // 40))
    figure = go.Figure(_heatmap(theme, chunks.values, "agreement", [list(row) for row in chunks.waves]))
    figure.data[0].zmax = max(value for row in chunks.values for value in row if value is not None) or 1.0
    figure.data[0].text = [[name] * len(chunks.values[0]) for name in chunks.names]
    figure.data[0].hovertemplate = "%{text}, chunk %{x}: %{z:.3f}<br>%{customdata}<extra></extra>"
    places, rows = [], []
    for row, limit in enumerate(chunks.limits):
        places += [limit, limit]
        rows += [row - 0.5, row + 0.5]
    figure.add_scatter(
        x=places,
        y=rows,
        mode="lines",
        line={"color": THEMES[theme].strong, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_layout(
        **layout(theme, height=map_height(len(chunks.names)), plot_bgcolor=THEMES[theme].sunken),
        xaxis=axis(theme, "chunk, from high to low frequency", showgrid=False),
        yaxis=axis(
            theme,
            "layer (its heads from top to bottom)",
            showgrid=False,
            range=[len(chunks.names) - 0.5, -0.5],
            tickmode="array",
            tickvals=[row for _, row in layers[::step]],
            ticktext=[str(layer) for layer, _ in layers[::step]],
        ),
    )
    return figure


def map_height(rows: int) -> int:
    """Return the map's height in pixels."""
    return 90 + max(160, min(9 * rows, max(620, 2 * rows)))


def chunk_lines(curves: Sequence[ChunkCurve], theme: ThemeName = "light") -> go.Figure:
    """Draw mean and largest agreement of every chunk, by chunk.

    Raises:
        ValueError: no curve was given.
    """
    if not curves:
        raise ValueError("chunk_lines needs at least one curve")
    colours = THEMES[theme]
    figure = go.Figure()
    for i, curve in enumerate(curves):
        prefix = f"{curve.name}: " if len(curves) > 1 else ""
        for name, values, colour in (
            ("best head", curve.largest, colours.strong),
            ("mean over heads", curve.mean, colours.accent),
        ):
            figure.add_scatter(
                x=list(range(len(values))),
                y=list(values),
                name=plain(prefix + name),
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": DASHES[i % len(DASHES)]},
                marker={"color": colour, "size": 5},
                customdata=list(curve.waves),
                hovertemplate=f"chunk %{{x}}, {plain(name)}: %{{y:.3f}}<br>%{{customdata}}<extra></extra>",
            )
    limits = {curve.limit for curve in curves if curve.limit is not None}
    figure.update_layout(
        **layout(theme, height=340, showlegend=True),
        xaxis=axis(theme, "chunk, from high to low frequency", showgrid=False),
        yaxis=axis(theme, "agreement", tickformat=".0%", rangemode="tozero"),
        shapes=[
            {
                "type": "line",
                "x0": limit,
                "x1": limit,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": colours.muted, "width": 1.5, "dash": "dot"},
            }
            for limit in sorted(limits)
        ],
    )
    return figure


def choice_lines_figure(lines: Sequence[ChoiceLine], theme: ThemeName = "light") -> go.Figure:
    """Draw agreement of every way to choose keys against the budget.

    Raises:
        ValueError: no line was given.
    """
    if not lines:
        raise ValueError("choice_lines_figure needs at least one line")
    colours = THEMES[theme]
    ink = {"baseline": colours.second, "control": colours.muted, "chunks": colours.accent}
    best = max((i for i, line in enumerate(lines) if line.kind == "chunks"), default=-1)
    figure = go.Figure()
    counts = dict.fromkeys(ink, 0)
    for i, line in enumerate(lines):
        colour, turn = colours.strong if i == best else ink[line.kind], counts[line.kind]
        counts[line.kind] += 1
        figure.add_scatter(
            x=list(line.budgets),
            y=[item.value for item in line.points],
            name=plain(line.title),
            mode="lines+markers",
            line={
                "color": colour,
                "width": 3 if i == best else 2,
                "dash": "solid" if i == best else DASHES[turn % len(DASHES)],
            },
            marker={"color": colour, "size": 8, "symbol": SYMBOLS[turn % len(SYMBOLS)]},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [_gap(item.high, item.value) for item in line.points],
                "arrayminus": [_gap(item.value, item.low) for item in line.points],
                "color": colour,
                "thickness": 1.5,
                "width": 4,
            },
            customdata=[_hover(item) for item in line.points],
            hovertemplate=f"{plain(line.title)}, %{{x}} keys: %{{customdata}}<extra></extra>",
        )
    budgets = sorted({budget for line in lines for budget in line.budgets})
    ticks = {"tickmode": "array", "tickvals": budgets, "ticktext": [f"{budget:,}" for budget in budgets]}
    figure.update_layout(
        **layout(theme, height=460, showlegend=True),
        xaxis=axis(theme, "budget, keys a query", type="log", showgrid=False, **ticks),
        yaxis=axis(theme, "top keys found", tickformat=".0%", rangemode="tozero"),
    )
    return figure


def overlap_figure(matrix: OverlapMatrix, theme: ThemeName = "light") -> go.Figure:
    """Draw the overlap of dominant chunks between tasks."""
    figure = go.Figure(_heatmap(theme, matrix.values, "overlap", None))
    figure.data[0].update(
        x=list(matrix.tasks),
        y=list(matrix.tasks),
        texttemplate="%{z:.2f}",
        textfont={"size": 13},
        hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
        xgap=2,
        ygap=2,
    )
    figure.update_layout(
        **layout(theme, height=overlap_height(len(matrix.tasks)), plot_bgcolor=THEMES[theme].sunken),
        xaxis=axis(theme, "", showgrid=False, type="category"),
        yaxis=axis(theme, "", showgrid=False, type="category", autorange="reversed"),
    )
    return figure


def overlap_height(tasks: int) -> int:
    """Return the matrix's height in pixels."""
    return 120 + 56 * max(2, tasks)


def _heatmap(
    theme: ThemeName, values: Sequence[Sequence[float | None]], title: str, customdata: list[list[str]] | None
) -> go.Heatmap:
    colours = THEMES[theme]
    return go.Heatmap(
        z=[list(row) for row in values],
        zmin=0.0,
        zmax=1.0,
        customdata=customdata,
        colorscale=[[i / 5, colour] for i, colour in enumerate(SEQUENTIAL[theme])],
        colorbar={
            "title": {"text": title, "side": "right", "font": {"color": colours.muted}},
            "tickfont": {"color": colours.muted},
            "outlinewidth": 0,
            "thickness": 14,
        },
        hoverongaps=False,
    )


def _gap(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else max(0.0, upper - lower)


def _hover(item: Point) -> str:
    if item.value is None:
        return f"not measured: {plain(item.reason or '')}"
    interval = "" if item.low is None or item.high is None else f" [{number(item.low)}, {number(item.high)}]"
    return f"{number(item.value)}{interval}, {item.n} prompts"
