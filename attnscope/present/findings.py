"""The doctor's tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

_MARKS = {True: ("yes", "green"), False: ("no", "bold red"), None: ("–", "dim")}


def findings_table(title: str, findings: Sequence[tuple[str, bool | None, str]]) -> Table:
    """Return a table of (what, works, detail); None marks what is optional and absent.

    Example:
        >>> findings_table("Devices", [("cpu", True, "2 cores")]).row_count
        1
    """
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False)
    for what, works, detail in findings:
        mark, style = _MARKS[works]
        table.add_row(Text(what), Text(mark, style=style), Text(detail))
    return table
