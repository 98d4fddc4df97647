"""Changes of the loss with their intervals, each beside its random controls."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.effects import Effect
from ._layout import axis, layout, plain


def effect_dots(effects: Sequence[Effect], theme: ThemeName = "light") -> go.Figure:
    """Draw one row a change: the change with its interval, and every draw of its controls below it.

    Raises:
        ValueError: no effects were given.
    """
    if not effects:
        raise ValueError("effect_dots needs at least one effect")
    colours = THEMES[theme]
    names = list(dict.fromkeys(name for effect in effects for name, _ in effect.controls))
    figure = go.Figure(
        go.Scatter(
            x=[effect.value for effect in effects],
            y=list(range(len(effects))),
            name="the change",
            mode="markers",
            marker={"symbol": "circle", "size": 12, "color": colours.strong},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [0.0 if e.high is None else max(0.0, e.high - e.value) for e in effects],
                "arrayminus": [0.0 if e.low is None else max(0.0, e.value - e.low) for e in effects],
                "color": colours.strong,
                "thickness": 2,
                "width": 5,
            },
            customdata=[plain(f"{effect.name}, {effect.verdict}") for effect in effects],
            hovertemplate="%{customdata}: %{x:+.3~g} nats<extra></extra>",
        )
    )
    for i, name in enumerate(names):
        held = [
            (x, y) for y, effect in enumerate(effects) for key, draws in effect.controls if key == name for x in draws
        ]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in held],
                y=[y + 0.2 * (i + 1) for _, y in held],
                name=f"{name}, one mark a draw",
                mode="markers",
                marker={
                    "symbol": ("line-ns-open", "x-thin-open")[i % 2],
                    "size": 11,
                    "color": (colours.accent, colours.muted)[i % 2],
                    "line": {"width": 1.8, "color": (colours.accent, colours.muted)[i % 2]},
                },
                hovertemplate=f"{plain(name)}: %{{x:+.3~g}} nats<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    figure.update_layout(
        **layout(theme, height=effects_height(len(effects)), showlegend=True),
        xaxis=axis(theme, "change of the loss, nats a token"),
        yaxis=axis(
            theme,
            "",
            range=[len(effects) - 0.4, -0.5],
            tickmode="array",
            tickvals=list(range(len(effects))),
            ticktext=[plain(effect.name).replace(": ", ":<br>") for effect in effects],
            showgrid=False,
        ),
    )
    return figure


def effects_height(n: int) -> int:
    """Return the figure's height in pixels."""
    return 150 + 62 * n
