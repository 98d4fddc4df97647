"""Terminal text of a retrieval report, as rich renderables; text from models and reports is never markup."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..core.retrieval_report import RetrievalReport
from ._tables import indent, section, table
from .tokens import visible
from .views.points import Point
from .views.retrieval_curves import Compared, ComparedLine, ablation_lines, budget_lines
from .views.retrieval_heads import top_lines
from .views.retrieval_measures import WORDS, agreement_rows
from .views.retrieval_missing import retrieval_missing
from .views.retrieval_needles import needle_grid
from .views.retrieval_summary import retrieval_headline, retrieval_sentences
from .wording import number, percent, points, weights_notice


def retrieval_summary(report: RetrievalReport) -> RenderableType:
    """Return the summary, the needles, the highest heads, the measures, both curves and what was not measured."""
    info, notice = report.model, weights_notice(report.model)
    heads = retrieval_heads_table(report) if top_lines(report) else None
    parts: list[RenderableType] = [
        Text(visible(info.model_id, 100), style="bold"),
        *([Text(notice, style="bold yellow")] if notice else []),
        Text(""),
        Text(retrieval_headline(report)),
        *(indent(Text(sentence)) for sentence in retrieval_sentences(report)),
        *section("Needles answered", needles_table(report), "no needle was given"),
        *section("Highest heads", heads, "no head has a retrieval score"),
        *section("Agreement of measures", _agreements(report), "no two measures were compared"),
    ]
    for line in ablation_lines(report):
        parts += section(f"Ablated, {line.key}", compared_table(line, "heads", lambda item: str(len(item.heads))), "")
    for line in budget_lines(report):
        body = compared_table(line, "full", lambda item: f"{percent(item.x)} ({len(item.heads)})")
        parts += section(f"KV heads full, {line.title}", body, "")
    absent = retrieval_missing(report)
    if absent:
        lines = [Text(f"{visible(what, 100)}: {visible(why, 300)}") for what, why in absent]
        parts += section("Not measured", Group(*lines), "")
    return Group(*parts)


def needles_table(report: RetrievalReport) -> Table | None:
    """Return one row a length and one column a depth; `—` had no needle."""
    grid = needle_grid(report)
    if grid is None:
        return None
    rows = ((f"{length:,}", *(percent(row[i].value) for row in grid.cells)) for i, length in enumerate(grid.lengths))
    columns = ("length", *(f"depth {percent(round(depth, 3))}" for depth in grid.depths))
    return table(columns, rows, right=range(len(columns)))


def retrieval_heads_table(report: RetrievalReport, top: int = 12) -> Table:
    """Return one row a head, the highest first; `—` was not measured."""
    lines = top_lines(report, top)
    measures = list(WORDS)[2:]
    rows = (
        (
            line.name,
            "yes" if line.above else "no",
            *(with_interval(item, number) for item in (line.score, line.decoded)),
            *(number(line.measures[name].value) for name in measures),
        )
        for line in lines
    )
    titles = ("answer given", "decoding", "QR", "echo", "induction", "v+s")
    made = table(("head", f"≥{report.threshold:g}", *titles), rows, right=range(2, 8))
    if len(report.heads) > len(lines):
        made.caption = Text(f"{len(report.heads) - len(lines)} more in retrieval.parquet")
    return made


def _agreements(report: RetrievalReport) -> Table | None:
    rows = [
        (row.first, row.second, number(row.spearman), f"{row.common} of {row.k}", number(row.expected))
        for row in agreement_rows(report)
    ]
    return table(("first", "second", "rank corr.", "in both", "by chance"), rows, right=(2, 3, 4)) if rows else None


def compared_table(line: ComparedLine, name: str, called: Callable[[Compared], str]) -> Table:
    """Return one row a step: accuracy, its change, the control and the verdict; `called` names the step."""
    rows = (
        (
            called(item),
            with_interval(item.accuracy, percent),
            with_interval(item.change, points),
            with_interval(item.control, percent),
            Text(_verdict(item), style="green" if item.apart else "yellow"),
        )
        for item in line.points
    )
    return table((name, "accuracy", "change, points", "random", "against random"), rows, right=(0,))


def _verdict(item: Compared) -> str:
    return f"{item.verdict}: {visible(item.control.reason, 100)}" if item.control.reason else item.verdict


def with_interval(item: Point, form: Callable[[float | None], str]) -> str:
    """Return a point with its interval, each number in one form."""
    if item.low is None or item.high is None:
        return form(item.value)
    return f"{form(item.value)} [{form(item.low)}, {form(item.high)}]"
