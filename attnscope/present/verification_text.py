"""Terminal text of a comparison with published numbers."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..core.published import Compared, Verification
from ..core.report import Missing
from .tokens import visible
from .wording import number, weights_notice

_STYLES = {"reproduced": "green", "not reproduced": "bold red"}


def verification_text(verification: Verification) -> RenderableType:
    """Return the model, how it was measured, the table and what a reader has to know."""
    info, notice = verification.model, weights_notice(verification.model)
    how = ", ".join(f"{name} {value}" for name, value in verification.protocol.items())
    parts: list[RenderableType] = [
        Text(visible(info.model_id, 100), style="bold"),
        *([Text(notice, style="bold yellow")] if notice else []),
        Text(f"{verification.claim} ({verification.source}), measured with {how}"),
    ]
    if not verification.published:
        parts.append(Text("nothing published for this model", style="yellow"))
    reasons = {row.row.tolerance.reason for row in verification.rows if row.verdict == "not reproduced" and row.row}
    parts += [Text(""), verification_table(verification.rows), Text("")]
    parts += [Text(f"Tolerance: {reason}.") for reason in sorted(reasons)]
    parts += [Text(note) for note in verification.notes]
    return Group(*parts)


def verification_table(rows: tuple[Compared, ...]) -> Table:
    """Return one row a metric; `—` was not measured or is not published.

    Example:
        >>> row = Compared(metric="layers", units=None, measured=8, published=None, difference=None, allowed=None,
        ...                verdict="nothing published")
        >>> verification_table((row,)).row_count
        1
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("metric", "measured", "published", "difference", "allowed", "verdict"):
        table.add_column(title, justify="left" if title in ("metric", "verdict") else "right")
    for row in rows:
        units = f" ({row.units})" if row.units else ""
        table.add_row(
            Text(row.metric.replace("_", " ") + units),
            _shown(None if isinstance(row.measured, Missing) else row.measured),
            _shown(row.published),
            _shown(row.difference),
            _shown(row.allowed),
            Text(row.verdict, style=_STYLES.get(row.verdict, "yellow")),
        )
    return table


def _shown(value: int | float | tuple[int, ...] | None) -> str:
    if isinstance(value, tuple):
        return " or ".join(map(str, value))
    return str(value) if isinstance(value, int) else number(value)
