"""Sink levels: the blocks over which each lives, and how much attention its sinks get."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.sink_levels import LevelRow
from ..wording import number
from ._layout import axis, layer_ticks, layout, plain

COLOURS = {"primary": "strong", "secondary": "accent", "attention only": "muted", "short-lived": "second"}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
MOST_SPANS = 12
"""Levels drawn as bars."""
_DASHES = ("solid", "dash", "dot", "dashdot")


def level_spans(rows: Sequence[LevelRow], theme: ThemeName = "light") -> go.Figure:
    """Draw one bar a level, from the first block to the last; the levels with most sinks where there are many.

    Raises:
        ValueError: no levels were given.
    """
    if not rows:
        raise ValueError("level_spans needs at least one level")
    blocks = max(len(row.shares) for row in rows)
    rows = _fullest(rows, MOST_SPANS)
    figure = go.Figure(
        go.Bar(
            y=[_named(row) for row in rows],
            x=[row.lifetime for row in rows],
            base=[row.first_layer - 0.5 for row in rows],
            orientation="h",
            width=0.5,
            marker={"color": [colour(row, theme) for row in rows]},
            customdata=[_tokens(row) for row in rows],
            hovertemplate="%{y}<br>%{customdata}<extra></extra>",
        )
    )
    figure.update_layout(
        **layout(theme, height=spans_height(len(rows)), showlegend=False),
        xaxis=axis(
            theme,
            "output of block",
            range=[-0.5, blocks - 0.5],
            showgrid=False,
            tickangle=0,
            **layer_ticks(tuple(range(blocks)), 16),
        ),
        yaxis=axis(theme, "level", autorange="reversed", type="category", showgrid=False),
    )
    return figure


def spans_height(n: int) -> int:
    """Return the figure's height in pixels."""
    return max(220, 110 + 52 * min(n, MOST_SPANS))


def level_lines(rows: Sequence[LevelRow], theme: ThemeName = "light", most: int = 8) -> go.Figure:
    """Draw attention share by layer, one line a level; the levels with most sinks where there are many.

    Raises:
        ValueError: attention on no level was measured.
    """
    held = [row for row in rows if row.measured]
    if not held:
        raise ValueError("level_lines needs at least one level with a measured share")
    shown = _fullest(held, most)
    figure = go.Figure(
        [
            go.Scatter(
                x=list(range(len(row.shares))),
                y=list(row.shares),
                name=row.name,
                mode="lines+markers",
                line={"color": colour(row, theme), "width": 2.5, "dash": _DASHES[i // len(SYMBOLS) % len(_DASHES)]},
                marker={"color": colour(row, theme), "size": 8, "symbol": SYMBOLS[i % len(SYMBOLS)]},
                hovertemplate=f"{row.name}, layer %{{x}}: %{{y:.1%}}<extra></extra>",
            )
            for i, row in enumerate(shown)
        ]
    )
    blocks = max(len(row.shares) for row in shown)
    figure.update_layout(
        **layout(theme, height=340),
        xaxis=axis(theme, "layer", showgrid=False, tickangle=0, **layer_ticks(tuple(range(blocks)), 16)),
        yaxis=axis(theme, "share of a query's attention, a sink", tickformat=".0%", rangemode="tozero"),
    )
    figure.update_layout(showlegend=True)
    return figure


def colour(row: LevelRow, theme: ThemeName) -> str:
    """Return the colour of a level's kind."""
    return str(getattr(THEMES[theme], COLOURS[row.kind]))


def _fullest(rows: Sequence[LevelRow], most: int) -> list[LevelRow]:
    """Return the levels with most sinks, in their own order."""
    return sorted(sorted(rows, key=lambda row: -row.n_sinks)[:most], key=lambda row: row.index)


def _named(row: LevelRow) -> str:
    return f"{row.name}<br>{row.n_sinks} sink{'s' if row.n_sinks != 1 else ''}, norm {number(row.norm)}"


def _tokens(row: LevelRow) -> str:
    return ", ".join(f"{plain(token)} ({count})" for token, count in row.tokens)
