"""Points with intervals: error bars, and what hovering says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..views.points import Point
from ..wording import number
from ._layout import plain


def error_bars(points: Sequence[Point], colour: str, width: int = 4) -> dict[str, Any]:
    """Return plotly's error bars; nothing is drawn where there is no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [_gap(item.high, item.value) for item in points],
        "arrayminus": [_gap(item.value, item.low) for item in points],
        "color": colour,
        "thickness": 1.5,
        "width": width,
    }


def told(item: Point, what: str = "prompts") -> str:
    """Return a point for a hover label: `0.912 [0.85, 0.95], 16 prompts`, or why there is none."""
    if item.value is None:
        return f"not measured: {plain(item.reason or '')}"
    interval = "" if item.low is None or item.high is None else f" [{number(item.low)}, {number(item.high)}]"
    return f"{number(item.value)}{interval}, {item.n} {what}"


def _gap(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else max(0.0, upper - lower)
