"""The heads with the highest retrieval scores, and how many needles their ranking needs."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.retrieval_heads import HeadLine, StabilityView
from ._layout import axis, layout, plain
from ._points import error_bars, told


def head_dots(lines: Sequence[HeadLine], threshold: float, theme: ThemeName = "light") -> go.Figure:
    """Draw one row a head: its retrieval score with the answer given and while decoding, each with its interval.

    Raises:
        ValueError: no heads were given.
    """
    if not lines:
        raise ValueError("head_dots needs at least one head")
    colours = THEMES[theme]
    decoded = [(i, line) for i, line in enumerate(lines) if line.decoded.value is not None]
    figure = go.Figure(
        go.Scatter(
            x=[line.score.value for line in lines],
            y=[i - 0.13 for i in range(len(lines))],
            name="answer given",
            mode="markers",
            marker={"symbol": "circle", "size": 10, "color": colours.strong},
            error_x=error_bars([line.score for line in lines], colours.strong),
            customdata=[_head(line, "answer given", told(line.score, "needles")) for line in lines],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    if decoded:
        figure.add_trace(
            go.Scatter(
                x=[line.decoded.value for _, line in decoded],
                y=[i + 0.17 for i, _ in decoded],
                name="while decoding",
                mode="markers",
                marker={"symbol": "diamond-open", "size": 9, "color": colours.accent, "line": {"width": 1.8}},
                error_x=error_bars([line.decoded for _, line in decoded], colours.accent),
                customdata=[_head(line, "while decoding", told(line.decoded, "needles")) for _, line in decoded],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[threshold, threshold],
            y=[-0.6, len(lines) - 0.4],
            name=f"threshold {threshold:g}",
            mode="lines",
            line={"color": colours.text, "width": 1.5, "dash": "dash"},
            hoverinfo="skip",
        )
    )
    figure.update_layout(
        **layout(theme, height=dots_height(len(lines)), showlegend=True),
        xaxis=axis(theme, "retrieval score", rangemode="tozero"),
        yaxis=axis(
            theme,
            "query head",
            range=[len(lines) - 0.4, -0.6],
            tickmode="array",
            tickvals=list(range(len(lines))),
            ticktext=[line.name for line in lines],
            showgrid=False,
        ),
    )
    return figure


def dots_height(n: int) -> int:
    """Return the figure's height in pixels."""
    return 130 + max(150, 26 * n)


def stability_curve(view: StabilityView, theme: ThemeName = "light") -> go.Figure:
    """Draw the share of the top heads in common with all needles, with its 5% quantile, and where it settles."""
    colours = THEMES[theme]
    held: list[float | None] = [
        overlap for trial, overlap in zip(view.trials, view.overlap, strict=True) if trial >= view.settled
    ]
    figure = go.Figure(
        [
            go.Scatter(
                x=list(view.trials),
                y=list(view.low),
                name="5% quantile of random orders",
                mode="lines",
                line={"color": colours.second, "width": 1.2, "dash": "dot"},
                hovertemplate="%{x} needles, 5% quantile: %{y:.0%}<extra></extra>",
            ),
            go.Scatter(
                x=list(view.trials),
                y=list(view.overlap),
                name="mean",
                mode="lines",
                fill="tonexty",
                fillcolor=colours.sunken,
                line={"color": colours.accent, "width": 2.5},
                hovertemplate="%{x} needles: %{y:.0%} of the heads<extra></extra>",
            ),
            go.Scatter(
                x=[view.settled],
                y=held[:1] or [None],
                name=f"settled: {view.settled}",
                mode="markers",
                marker={"symbol": "diamond", "size": 12, "color": colours.strong},
                hovertemplate="settled from %{x} needles on<extra></extra>",
            ),
        ]
    )
    figure.update_layout(
        **layout(theme, height=STABILITY_HEIGHT, showlegend=True),
        xaxis=axis(theme, "answered needles", rangemode="tozero", showgrid=False),
        yaxis=axis(theme, f"top {view.k} heads in common", tickformat=".0%", range=[0, 1.04]),
    )
    return figure


STABILITY_HEIGHT = 460


def _head(line: HeadLine, which: str, value: str) -> str:
    return plain(f"{line.name} (KV head {line.kv_head}), {which}: ") + value
