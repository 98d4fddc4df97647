"""Terminal text of a frequency report, as rich renderables; text from models is never markup."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..core.frequency_report import FrequencyReport
from .tokens import visible
from .views.frequency_choices import choice_lines, frequency_headline, frequency_sentences, overlap_matrix
from .wording import weights_notice


def frequency_summary(report: FrequencyReport) -> RenderableType:
    """Return the summary, the choices of keys beside the paper's figures, and what tasks share."""
    notice = weights_notice(report.model)
    parts: list[RenderableType] = [
        Text(visible(report.model.model_id, 100), style="bold"),
        *([Text(notice, style="bold yellow")] if notice else []),
        Text(""),
        Text(frequency_headline(report)),
        *(_indent(Text(sentence)) for sentence in frequency_sentences(report)),
        *(_indent(Text(visible(note, 300), style="dim")) for note in report.notes),
        Text(""),
        Text("Top keys found, held-out prompts", style="bold"),
        _indent(choices_table(report) if report.choices else Text("not measured", style="dim")),
        Text(""),
        Text(f"Overlap of {report.overlap_size} dominant chunks", style="bold"),
        _indent(overlap_table(report) or Text("not measured", style="dim")),
    ]
    return Group(*parts)


def choices_table(report: FrequencyReport) -> Table:
    """Return one row a method, one column a budget, and the paper's figure; `—` was not measured."""
    table = _table(("keys", *(f"{budget:,}" for budget in report.budgets), "paper, 256"))
    for line in choice_lines(report):
        shares = ("—" if item.value is None else f"{item.value:.1%}" for item in line.points)
        table.add_row(Text(line.title), *shares, "—" if line.paper is None else f"{line.paper:.1f}%")
    return table


def overlap_table(report: FrequencyReport) -> Table | None:
    """Return tasks by tasks; None where nothing was compared."""
    matrix = overlap_matrix(report)
    if matrix is None:
        return None
    table = _table(("", *matrix.tasks))
    for task, row in zip(matrix.tasks, matrix.values, strict=True):
        table.add_row(Text(task), *("—" if value is None else f"{value:.2f}" for value in row))
    return table


def _table(columns: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    return table


def _indent(item: RenderableType) -> Padding:
    return Padding(item, (0, 0, 0, 2))
