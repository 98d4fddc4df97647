"""Terminal text of a circuit report, as rich renderables; text from models and reports is never markup."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..core.circuit_report import CircuitReport
from ..core.units import Level
from ._tables import indent, section, table
from .retrieval_text import compared_table, with_interval
from .tokens import visible
from .views.circuit_missing import circuit_missing
from .views.circuit_quality import FaithfulnessLine, faithfulness_lines
from .views.circuit_summary import circuit_headline, circuit_sentences, p_words, told_points
from .views.circuit_tests import DissociationView, circuit_lines, curve_levels, dissociation_views
from .views.circuit_units import LEVEL_WORDS, task_names, top_units, unit_lines
from .views.points import point
from .wording import number, percent, weights_notice


def circuit_summary(report: CircuitReport) -> RenderableType:
    """Return the summary, the tasks, dissociations, the largest effects, curves and what was not measured."""
    notice = weights_notice(report.model)
    parts: list[RenderableType] = [
        Text(visible(report.model.model_id, 100), style="bold"),
        *([Text(notice, style="bold yellow")] if notice else []),
        Text(""),
        Text(circuit_headline(report)),
        *(indent(Text(sentence)) for sentence in circuit_sentences(report)),
        *section("Tasks", _tasks(report), ""),
    ]
    for view in dissociation_views(report):
        parts += section(f"Dissociation: {view.title}", dissociation_table(view), "")
    for level in report.levels:
        title = f"Largest effects, {LEVEL_WORDS[level.level][1]}"
        parts += section(title, units_table(report, level.level), "no effect was measured")
    for name in curve_levels(report):
        for line in circuit_lines(report, name):
            parts += section(line.title, compared_table(line, "units", lambda item: str(len(item.heads))), "")
    curves = faithfulness_lines(report)
    if curves:
        parts += section("Faithfulness over circuit size", _faithfulness(curves), "")
    absent = circuit_missing(report)
    if absent:
        lines = [Text(f"{visible(what, 100)}: {visible(why, 300)}") for what, why in absent]
        parts += section("Not measured", Group(*lines), "")
    return Group(*parts)


def _tasks(report: CircuitReport) -> Table:
    rows = (
        (
            visible(task.name, 60),
            f"{task.n_prompts:,}",
            with_interval(point(task.accuracy), percent),
            with_interval(point(task.metric), number),
            with_interval(point(task.corrupt), number),
        )
        for task in report.tasks
    )
    return table(("task", "prompts", "right answers", "metric, clean", "metric, corrupt"), rows, right=(1,))


def dissociation_table(view: DissociationView) -> Table:
    """Return one row a circuit: what it costs its own task and the other, with Δ and the control's."""
    rows = []
    for side in view.sides:
        draws = side.delta_draws
        control = f"{told_points_range(min(draws), max(draws))}" if draws else "no control"
        rows.append(
            (
                side.circuit,
                told_points(side.own.drop, sign=False),
                told_points(side.other.drop, sign=False),
                told_points(side.delta),
                control,
                Text(side.verdict, style="green" if side.selective and side.certain else "yellow"),
            )
        )
    made = table(("circuit", "own task loses", "other loses", "Δ", "random Δ", "verdict"), rows, right=())
    made.caption = Text(f"Points of accuracy. {view.sentence}")
    return made


def told_points_range(low: float, high: float) -> str:
    """Return two changes of a share in points, as a range."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def units_table(report: CircuitReport, level: Level, top: int = 12) -> Table | None:
    """Return one row a unit, the largest effect first; `—` was not measured, None where nothing was."""
    lines, tasks = top_units(report, level, top), task_names(report)
    if not lines:
        return None
    rows = (
        (
            line.name,
            *(
                cell
                for task in tasks
                for cell in (with_interval(line.drops[task].point, number), p_words(line.drops[task].q))
            ),
            ", ".join(line.chosen) or "—",
        )
        for line in lines
    )
    columns = ("unit", *(name for task in tasks for name in (task, "q")), "circuit")
    made = table(columns, rows, right=())
    rest = len(unit_lines(report, level)) - len(lines)
    if rest:
        made.caption = Text(f"{rest:,} more in circuits.parquet")
    return made


def _faithfulness(lines: list[FaithfulnessLine]) -> Table:
    rows = ((line.title, number(line.cpr), number(line.cmd), _range(line)) for line in lines)
    return table(("circuits", "CPR", "CMD", "f at the smallest and largest size"), rows, right=(1, 2))


def _range(line: FaithfulnessLine) -> str:
    ends = (f"{number(line.values[i])} at {percent(line.sizes[i])}" for i in (0, -1))
    return ", ".join(ends)
