"""Needle accuracy versus the budget of full KV heads."""

from __future__ import annotations

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.decode_accuracy import AccuracyCurves, AccuracyPoint
from ._layout import axis, layout, plain


def accuracy_lines(view: AccuracyCurves, theme: ThemeName = "light") -> go.Figure:
    """Draw our choice as a line with its intervals, random choices as a line with a band, all full as a dotted line.

    Raises:
        ValueError: the view has no curve.
    """
    if not view.curves:
        raise ValueError("accuracy_lines needs at least one curve")
    colours = THEMES[theme]
    figure = go.Figure()
    for name, points in view.curves.items():
        ours = name == "ours"
        colour = colours.strong if ours else colours.accent
        if not ours:
            figure.add_trace(_band(points, colour))
        figure.add_trace(
            go.Scatter(
                x=[point.budget for point in points],
                y=[point.value for point in points],
                name=plain(name),
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": "solid" if ours else "dash"},
                marker={"color": colour, "size": 9, "symbol": "circle" if ours else "diamond"},
                error_y=_errors(points, colour) if ours else None,
                customdata=[plain(point.note) for point in points],
                hovertemplate=f"{plain(name)}: %{{y:.3~f}}<br>%{{customdata}}<extra></extra>",
            )
        )
    budgets = sorted({point.budget for points in view.curves.values() for point in points})
    figure.add_trace(
        go.Scatter(
            x=[budgets[0], budgets[-1]],
            y=[view.all_full] * 2,
            name="all full",
            mode="lines",
            line={"color": colours.muted, "width": 1.5, "dash": "dot"},
            hovertemplate="all full: %{y:.3~f}<extra></extra>",
        )
    )
    figure.update_layout(
        **layout(theme, height=360, showlegend=True),
        xaxis=axis(
            theme,
            "share of KV heads that are full",
            type="log" if budgets[0] > 0 else "linear",
            tickmode="array",
            tickvals=budgets,
            ticktext=[f"{budget:.2%}".replace(".00%", "%") for budget in budgets],
        ),
        yaxis=axis(theme, f"needles answered at {view.length:,} tokens", range=[-0.03, 1.06]),
    )
    return figure


def _errors(points: tuple[AccuracyPoint, ...], colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if p.high is None else max(0.0, p.high - p.value) for p in points],
        "arrayminus": [0.0 if p.low is None else max(0.0, p.value - p.low) for p in points],
        "color": colour,
        "thickness": 1.5,
        "width": 5,
    }


def _band(points: tuple[AccuracyPoint, ...], colour: str) -> go.Scatter:
    """Return the intervals of a curve as one closed area, where there are any."""
    held = [(p.budget, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    return go.Scatter(
        x=[x for x, _, _ in held] + [x for x, _, _ in reversed(held)],
        y=[low for _, low, _ in held] + [high for _, _, high in reversed(held)],
        fill="toself",
        fillcolor=colour,
        opacity=0.18,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )
