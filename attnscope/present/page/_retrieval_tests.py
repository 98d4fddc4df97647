"""Needle accuracy without heads, and with few KV heads full."""

from __future__ import annotations

from collections.abc import Callable

from ...core.retrieval_report import RetrievalReport
from ..figures.retrieval_curves import curves_height
from ..views.points import Point
from ..views.retrieval_curves import Compared, ComparedLine, ablation_lines, budget_lines
from ..views.retrieval_missing import budgets_absent, curve_absent
from ..wording import percent, points
from . import _markup as m
from ._retrieval import with_interval


def ablation_section(report: RetrievalReport) -> str:
    """Return needle accuracy over how many heads are ablated, beside as many random others."""
    lede = (
        "The heads with the highest retrieval scores are ablated, more and more; as many random others are the control."
    )
    lines = ablation_lines(report)
    if not lines:
        body = m.panel(m.not_measured(curve_absent(report)))
        return m.section("retrieval-ablation", "What happens without them", lede, body)
    note = '<p class="note">Bars: intervals over prompts. A cross is one random choice of heads.</p>'
    chart = m.panel(m.chart("retrieval-curves", curves_height(lines)) + note)
    loose = any(not point.layer_matched for line in lines for point in line.points)
    tables = "".join(_table(line, "Heads", lambda item: f"{len(item.heads)}") for line in lines)
    why = "* Too few other heads in the same layers: some controls took heads of the nearest layers." if loose else ""
    body = f'<div class="stack">{chart}{tables}</div>{f"<p class=note>{m.text(why)}</p>" if why else ""}'
    return m.section("retrieval-ablation", "What happens without them", lede, body)


def budgets_section(report: RetrievalReport) -> str:
    """Return needle accuracy over the share of KV heads that stay full."""
    kept = ""
    if report.sink_tokens is not None and report.recent_tokens is not None:
        kept = f" ({report.sink_tokens:,} sink tokens and the last {report.recent_tokens:,})"
    lede = f"Some KV heads keep the whole cache; all others stream{kept}. Random choices of as many are the control."
    lines = budget_lines(report)
    if not lines:
        body = m.panel(m.not_measured(budgets_absent(report)))
        return m.section("retrieval-budgets", "How many KV heads must stay full", lede, body)
    chart = m.panel(m.chart("retrieval-budget", curves_height(lines)))
    tables = "".join(_table(line, "Full", lambda item: f"{percent(item.x)} ({len(item.heads)})") for line in lines)
    body = f'<div class="stack">{chart}{tables}</div>'
    return m.section("retrieval-budgets", "How many KV heads must stay full", lede, body)


def _table(line: ComparedLine, name: str, called: Callable[[Compared], str]) -> str:
    columns = (name, "Accuracy", "Change, points", "Random, mean", "Draws", "Accuracy is")
    rows = (
        (
            f'<span class="nobreak">{called(item)}{"" if item.layer_matched else "*"}</span>',
            with_interval(item.accuracy),
            _change(item.change),
            with_interval(item.control),
            f"{len(item.draws)}",
            m.text(item.verdict + (f": {item.control.reason}" if item.control.reason else "")),
        )
        for item in line.points
    )
    table = m.table(columns, rows, line.title, right=range(5))
    which = "".join(
        f"<dt>{called(item)}</dt><dd>{m.text(', '.join(item.heads) or 'none', 4000)}</dd>" for item in line.points
    )
    return m.panel(f'{table}<details><summary>Which heads</summary><dl class="dl">{which}</dl></details>')


def _change(item: Point) -> str:
    interval = "" if item.low is None or item.high is None else f" [{points(item.low)}, {points(item.high)}]"
    return f'<span class="nobreak">{points(item.value)}{interval}</span>'
