"""What terminal texts share: sections and plain tables whose cells are never markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .tokens import visible


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[int]) -> Table:
    """Return a table without lines; columns listed in `right` are numbers."""
    made = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left", caption_style="dim"
    )
    for i, name in enumerate(columns):
        made.add_column(name, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def section(title: str, body: RenderableType | None, otherwise: str) -> list[RenderableType]:
    """Return a heading and its body, or `otherwise` in its place."""
    shown = body if body is not None else Text(visible(otherwise, 200), style="dim")
    return [Text(""), Text(title, style="bold"), indent(shown)]


def indent(item: RenderableType) -> Padding:
    """Return the item, two columns in."""
    return Padding(item, (0, 0, 0, 2))
