"""What all figures share: layout, axes, and text that plotly does not take for markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from ..style import SANS, THEMES, ThemeName

CLEAR = "rgba(0,0,0,0)"


def plain(text: str) -> str:
    """Return text that plotly shows as it stands: no tags, no entities, no TeX (plotly reads `$…$` as TeX)."""
    return escape(text, quote=False).replace("$", "&#36;")


def layout(theme: ThemeName, height: int, **extra: Any) -> dict[str, Any]:
    """Return the layout of every figure; `extra` goes over it."""
    colours = THEMES[theme]
    base: dict[str, Any] = {
        "template": "none",
        "height": height,
        "font": {"family": SANS, "size": 13, "color": colours.text},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 64, "r": 24, "t": 24, "b": 52},
        "hoverlabel": {
            "bgcolor": colours.surface,
            "bordercolor": colours.line,
            "font": {"family": SANS, "size": 13, "color": colours.text},
            "align": "left",
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": colours.text}},
        "modebar": {"bgcolor": CLEAR, "color": colours.muted, "activecolor": colours.accent},
        "dragmode": False,
    }
    return base | extra


def axis(theme: ThemeName, title: str, **extra: Any) -> dict[str, Any]:
    """Return an axis with a title that names its unit."""
    colours = THEMES[theme]
    base: dict[str, Any] = {
        "title": {"text": title, "font": {"size": 13, "color": colours.muted}, "standoff": 10},
        "color": colours.muted,
        "tickfont": {"size": 12, "color": colours.muted},
        "gridcolor": colours.line,
        "linecolor": colours.line,
        "showline": True,
        "showgrid": True,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "fixedrange": True,
    }
    return base | extra


def layer_ticks(layers: tuple[int, ...], most: int = 24) -> dict[str, Any]:
    """Return ticks for a categorical axis of integers that do not crowd."""
    step = max(1, -(-len(layers) // most))
    return {"tickmode": "array", "tickvals": list(layers[::step]), "ticktext": [str(x) for x in layers[::step]]}


def log_ticks(values: Sequence[float]) -> dict[str, object]:
    """Return ticks at 1, 2 and 5 times powers of ten, or at powers alone where those would crowd."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive:
        return {}
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
