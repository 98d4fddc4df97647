"""The top of the circuit page: summary and tasks; and its end: how effects were measured, and what is missing."""

from __future__ import annotations

from ...core.circuit_report import CircuitReport, LevelResult
from ..views.circuit_missing import circuit_missing
from ..views.circuit_summary import circuit_headline, circuit_sentences, told_points
from ..views.circuit_units import LEVEL_WORDS, metric_words
from ..views.points import Point, point
from ..wording import capital, number, points, weights_notice
from . import _markup as m
from ._retrieval import with_interval

TESTS = {"sign-flip": "sign flips", "wilcoxon": "Wilcoxon's signed ranks"}
"""How tests of core.circuit_report.LevelResult read."""


def hero(report: CircuitReport) -> str:
    """Return the headline and what was found, in sentences."""
    info, warning = report.model, weights_notice(report.model)
    notice = f'<p class="warning" role="note">{m.text(warning)}</p>' if warning else ""
    prompts = ", ".join(f"{task.n_prompts:,} prompts of {task.name}" for task in report.tasks)
    facts = f"{info.architecture} · {info.n_layers} layers × {info.n_heads} query heads · {prompts}"
    items = "".join(f"<li>{m.text(sentence, 700)}</li>" for sentence in circuit_sentences(report))
    found = f'<div class="panel"><ul class="findings">{items}</ul></div>' if items else ""
    return (
        f'<div class="hero"><p class="kicker">Circuits of <b>{m.text(info.model_id, 120)}</b></p>'
        f'<h1>{m.text(circuit_headline(report))}</h1><p class="facts">{m.text(facts)}</p>{notice}</div>{found}'
    )


def tasks_section(report: CircuitReport) -> str:
    """Return how the untouched model does each task."""
    lede = "What the untouched model does; an effect is the mean drop of the metric when one unit is ablated."
    rows = (
        (
            m.text(task.name),
            f"{task.n_prompts:,}",
            "—" if task.length is None else f"{task.length:,}",
            with_interval(point(task.accuracy)),
            with_bounds(point(task.metric)),
            with_bounds(point(task.corrupt)),
        )
        for task in report.tasks
    )
    columns = ("Task", "Prompts", "Tokens a prompt", "Right answers", "Metric, clean", "Metric, corrupt")
    table = m.table(columns, rows, right=range(1, 6))
    metrics = "; ".join(dict.fromkeys(metric_words(level) for level in report.levels)) or "none"
    note = f'<p class="note">Metric: {m.text(metrics)}. Intervals are 95%, over prompts.</p>'
    return m.section("circuits-tasks", "Tasks", lede, m.panel(table + note))


def setup_section(report: CircuitReport) -> str:
    """Return how the effects of each level were measured, what is missing, and the report's notes."""
    facts = "".join(f"<dt>{m.text(_title(level))}</dt><dd>{m.text(_how(level), 600)}</dd>" for level in report.levels)
    notes = "".join(f"<li>{m.text(note)}</li>" for note in report.notes)
    notes = f'<h3 class="later">Notes</h3><ul class="note">{notes}</ul>' if notes else ""
    missing = circuit_missing(report)
    absent = m.table(("What", "Why"), ((m.text(what), m.text(why)) for what, why in missing))
    if not missing:
        absent = '<p class="note">Everything was measured.</p>'
    tested = report.curves or report.dissociations
    lede = "How effects were measured, and what this report does not hold."
    if tested:
        lede = "A circuit is tested on prompts that took no part in choosing it."
    setup = m.panel(f"<dl class=dl>{facts}</dl>{notes}", "How effects were measured")
    body = f'<div class="two">{setup}{m.panel(absent, "Not measured")}</div>'
    return m.section("circuits-setup", "Setup", lede, body)


def _title(level: LevelResult) -> str:
    return capital(LEVEL_WORDS[level.level][1])


def _how(level: LevelResult) -> str:
    words = [f"{level.ablation} ablation, drop of {metric_words(level)}"]
    if level.screen:
        at = f", gradient at {level.gradient_at} prompts" if level.gradient_at else ""
        words.append(f"all {level.n_units:,} screened by {level.screen}{at}")
        words.append(f"{level.n_exact:,} measured exactly")
        words += [f"rank correlation on {task} {number(v)}" for task, v in level.agreement.items() if v is not None]
    else:
        words.append(f"{level.n_exact:,} of {level.n_units:,} measured exactly")
    if level.n_selection is not None:
        words.append(f"on the {level.n_selection:,} prompts a task that choose circuits")
    if level.forwards is not None:
        words.append(f"cost {number(level.forwards)} forward-equivalents")
    words.append(f"p-values by {TESTS.get(level.test, level.test)}")
    return "; ".join(words)


def with_bounds(item: Point) -> str:
    """Return `1.23 [1.1, 1.4]` on one line, HTML."""
    interval = "" if item.low is None or item.high is None else f" [{number(item.low)}, {number(item.high)}]"
    return f'<span class="nobreak">{number(item.value)}{interval}</span>'


def change(item: Point) -> str:
    """Return a change of a share in points on one line, HTML."""
    interval = "" if item.low is None or item.high is None else f" [{points(item.low)}, {points(item.high)}]"
    return f'<span class="nobreak">{points(item.value)}{interval}</span>'


def lost(item: Point) -> str:
    """Return a share that is lost in points on one line, HTML; it has a sign where something was gained."""
    return f'<span class="nobreak">{m.text(told_points(item, sign=False))}</span>'


def names(units: tuple[str, ...]) -> str:
    """Return unit names, HTML."""
    return m.text(", ".join(units) or "none", 4000)
