"""One colour and mark a task, in every figure of circuits."""

from __future__ import annotations

from ..style import THEMES, ThemeName

SYMBOLS = ("circle", "diamond", "square", "triangle-up")
OPEN = ("circle-open", "diamond-open", "square-open", "triangle-up-open")


def task_colours(theme: ThemeName) -> tuple[str, str, str, str]:
    """Return the colours of the first four tasks."""
    colours = THEMES[theme]
    return colours.accent, colours.strong, colours.text, colours.second


def nth(items: tuple[str, ...], i: int) -> str:
    """Return the item of the i-th task; more tasks than items share the last."""
    return items[min(i, len(items) - 1)]
