"""Residual sink dimensions: what every norm reads, rescaling against contribution, quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.residual_sinks import LossBar, ResidualSinkView
from ..wording import number
from ._layout import axis, layout, plain


def read_scores(view: ResidualSinkView, theme: ThemeName = "light") -> go.Figure:
    """Draw how far the largest dimension stands out of the median one, at every norm read.

    Raises:
        ValueError: no reads were given.
    """
    colours = THEMES[theme]
    figure = go.Figure(
        go.Bar(
            x=list(range(len(_held(view)))),
            y=[read.score for read in view.reads],
            marker={"color": colours.accent},
            customdata=[
                [name, read.argmax, read.argmax_hit] for name, read in zip(view.names, view.reads, strict=True)
            ],
            hovertemplate="%{customdata[0]}: dimension %{customdata[1]} is %{y:.3~g} × the median, the largest on "
            "%{customdata[2]:.0%} of the tokens<extra></extra>",
        )
    )
    figure.add_hline(y=1, line={"color": colours.muted, "width": 1, "dash": "dot"})
    figure.update_layout(
        **layout(theme, height=340, showlegend=False),
        xaxis=_reads(view, theme),
        yaxis=axis(theme, "largest ÷ median mean |x|", rangemode="tozero"),
    )
    return figure


def rescaling_lines(view: ResidualSinkView, theme: ThemeName = "light") -> go.Figure:
    """Draw the measured rms of every norm's output under the rescaling bound on it.

    Raises:
        ValueError: no reads were given.
    """
    reads, colours = _held(view), THEMES[theme]
    lines = [
        _line(view, "bound", [read.bound for read in reads], colours.muted, "diamond-open", "dash"),
        _line(view, "measured rms", [read.rms for read in reads], colours.accent, "circle", "solid"),
    ]
    figure = go.Figure(lines if any(read.bound is not None for read in reads) else lines[1:])
    figure.update_layout(
        **layout(theme, height=340, showlegend=True),
        xaxis=_reads(view, theme),
        yaxis=axis(theme, "rms of the norm's output", rangemode="tozero"),
    )
    return figure


def direct_lines(view: ResidualSinkView, theme: ThemeName = "light") -> go.Figure:
    """Draw what sink dimensions do to the norm's other outputs beside what they contribute themselves.

    Raises:
        ValueError: no reads were given.
    """
    reads, colours = _held(view), THEMES[theme]
    shrunk = [1 - 1 / read.denominator if read.denominator > 0 else None for read in reads]
    figure = go.Figure(
        [
            _line(view, "rescaling: others shrunk by", shrunk, colours.strong, "square", "solid"),
            _line(
                view, "contribution: read directly", [read.direct for read in reads], colours.accent, "circle", "solid"
            ),
        ]
    )
    figure.update_layout(
        **layout(theme, height=340, showlegend=True),
        xaxis=_reads(view, theme),
        yaxis=axis(theme, "share", tickformat=".0%", rangemode="tozero"),
    )
    return figure


def quantisation_bars(bars: Sequence[LossBar], theme: ThemeName = "light") -> go.Figure:
    """Draw the loss under quantisation, with sink dimensions and with random ones in full precision.

    Raises:
        ValueError: no losses were given.
    """
    if not bars:
        raise ValueError("quantisation_bars needs at least one loss")
    colours = THEMES[theme]
    shown = {"unquantised": colours.second, "sink dimensions apart": colours.strong}
    figure = go.Figure(
        go.Bar(
            y=[bar.name for bar in bars],
            x=[bar.value for bar in bars],
            orientation="h",
            width=0.55,
            marker={"color": [shown.get(bar.name, colours.accent) for bar in bars]},
            text=[f" {number(bar.value)}" for bar in bars],
            textposition="inside",
            insidetextanchor="start",
            textfont={"color": colours.surface, "size": 13},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [None if bar.high is None else bar.high - bar.value for bar in bars],
                "arrayminus": [None if bar.low is None else bar.value - bar.low for bar in bars],
                "color": colours.text,
                "thickness": 1.5,
                "width": 6,
            },
            hovertemplate="%{y}: %{x:.4~g} nats a token<extra></extra>",
        )
    )
    figure.update_layout(
        **layout(theme, height=300, showlegend=False),
        xaxis=axis(theme, "loss, nats a token", rangemode="tozero"),
        yaxis=axis(theme, "", autorange="reversed", type="category", showgrid=False),
    )
    return figure


def _held(view: ResidualSinkView) -> Sequence[Any]:
    if not view.reads:
        raise ValueError("this figure needs at least one norm read")
    return view.reads


def _reads(view: ResidualSinkView, theme: ThemeName) -> dict[str, Any]:
    step = max(1, -(-len(view.names) // 13))
    places = list(range(0, len(view.names), step))
    shown = [plain(view.names[i]).replace("attention ", "a").replace("mlp ", "m") for i in places]
    title = "norm, in forward order (a: attention, m: MLP)"
    return axis(
        theme,
        title,
        tickmode="array",
        tickvals=places,
        ticktext=shown,
        showgrid=False,
        range=[-0.7, len(view.names) - 0.3],
    )


def _line(
    view: ResidualSinkView, name: str, values: Sequence[float | None], colour: str, symbol: str, dash: str
) -> go.Scatter:
    return go.Scatter(
        x=list(range(len(values))),
        y=list(values),
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2.5, "dash": dash},
        marker={"color": colour, "size": 7, "symbol": symbol},
        customdata=list(view.names),
        hovertemplate=f"%{{customdata}}, {name} %{{y:.3~g}}<extra></extra>",
    )
