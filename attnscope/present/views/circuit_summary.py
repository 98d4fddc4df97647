"""A circuit report in a few sentences; what is said of a circuit is said beside its control."""

from __future__ import annotations

from ...core.circuit_report import FALSE_DISCOVERY, CircuitReport
from ...core.report import Missing
from ..tokens import visible
from ..wording import number, percent, points
from .circuit_quality import faithfulness_lines, overlap_rows
from .circuit_tests import DissociationSide, DissociationView, DropBar, dissociation_views, transfer_rows
from .circuit_units import LEVEL_WORDS, task_names, top_units
from .points import Point


def circuit_headline(report: CircuitReport) -> str:
    """Return one sentence: the dissociation at the first level that has one, otherwise the largest effects.

    Example:
        `Double dissociation of recall and reasoning at 2 of 3 levels: heads, neurons`
    """
    found = dissociation_views(report)
    if found:
        first, second = found[0].sides[0].circuit, found[0].sides[1].circuit
        levels = list(dict.fromkeys(view.level for view in found))
        double = [level for level in levels if any(view.double for view in found if view.level == level)]
        names = ", ".join(LEVEL_WORDS[level][1] for level in double or levels)
        if not double:
            return f"No double dissociation of {first} and {second} ({names})"
        count = f" at {len(double)} of {len(levels)} levels" if len(levels) > 1 else ""
        return f"Double dissociation of {first} and {second}{count}: {names}"
    for level in report.levels:
        lines = top_units(report, level.level, 3)
        if lines:
            names = ", ".join(line.name for line in lines)
            return f"Largest effects on {' and '.join(task_names(report))}: {names}"
    return f"No effect was measured on {' or '.join(task_names(report))}"


def circuit_sentences(report: CircuitReport) -> list[str]:
    """Return what was found, in plain words, the most important first; plain text."""
    found = [_tasks(report), *map(_dissociated, dissociation_views(report)), *_effects(report)]
    found += [*_overlaps(report), *_transfers(report), *_faithful(report)]
    return [sentence for sentence in found if sentence]


def _tasks(report: CircuitReport) -> str:
    told = [
        f"{percent(task.accuracy.value)} of {task.accuracy.n:,} on {visible(task.name, 60)}"
        for task in report.tasks
        if not isinstance(task.accuracy, Missing)
    ]
    return f"The untouched model answers {', '.join(told)}." if told else ""


def _dissociated(view: DissociationView) -> str:
    sides = "; ".join(map(_side, view.sides))
    loose = "" if view.layer_matched else " Some random draws took units of the nearest layers."
    return f"{view.title}: {view.verdict}. {sides[0].upper()}{sides[1:]}.{loose}"


def _side(side: DissociationSide) -> str:
    own, other = side.own, side.other
    lost = f"{own.task} loses {_lost(own)} points and {other.task} {_lost(other)}"
    if not own.draws or not other.draws:
        return f"without the {side.circuit} circuit, {lost} (no random control)"
    random = f"{_lost(_mean(own))} and {_lost(_mean(other))}"
    return f"without the {side.circuit} circuit, {lost} (as many random others: {random})"


def _lost(bar: DropBar) -> str:
    return told_points(bar.drop, sign=False)


def _mean(bar: DropBar) -> DropBar:
    return DropBar(bar.circuit, bar.task, Point(sum(bar.draws) / len(bar.draws)), ())


def _effects(report: CircuitReport) -> list[str]:
    sentences = []
    for level in report.levels:
        many = LEVEL_WORDS[level.level][1]
        counts = [
            f"{level.n_shown[task.name]:,} on {visible(task.name, 60)}"
            for task in report.tasks
            if task.name in level.n_shown
        ]
        if not counts or not level.n_exact:
            continue
        of = f"the {level.n_exact:,} of {level.n_units:,}" if level.n_exact < level.n_units else f"{level.n_units:,}"
        sentences.append(
            f"Of {of} {many} ablated one by one, {', '.join(counts)} change the {visible(level.metric, 60)} "
            f"(q ≤ {FALSE_DISCOVERY:g}, Benjamini-Hochberg)."
        )
    return sentences


def _overlaps(report: CircuitReport) -> list[str]:
    return [
        f"The circuits of {row.name} share {len(row.shared)} of {min(row.sizes)}; by chance {number(row.expected)} "
        f"(p = {p_words(row.p)}), with the same layers {number(row.layer_expected)} (p = {p_words(row.layer_p)})."
        for row in overlap_rows(report)
    ]


def _transfers(report: CircuitReport) -> list[str]:
    found = []
    for row in transfer_rows(report):
        if row.control.value is None:
            control = f"there is no random control ({visible(row.control.reason or '', 100)})"
        else:
            control = f"with random other units it is {percent(row.control.value)}"
        found.append(
            f"{row.edit}, taken from {row.source}: {row.task} goes from {percent(row.before.value)} to "
            f"{percent(row.after.value)} ({told_points(row.change)} points); {control}."
        )
    return found


def _faithful(report: CircuitReport) -> list[str]:
    return [
        f"{line.title}: CPR {number(line.cpr)}, CMD {number(line.cmd)}."
        for line in faithfulness_lines(report)
        if line.cpr is not None
    ]


def told_points(item: Point, sign: bool = True) -> str:
    """Return a share's change in points with its interval; without signs where its direction was said."""

    def form(value: float | None) -> str:
        return points(value) if sign else points(value).lstrip("+")

    interval = "" if item.low is None or item.high is None else f" [{form(item.low)}, {form(item.high)}]"
    return f"{form(item.value)}{interval}"


def p_words(value: float | None) -> str:
    """Return a p- or q-value; very small ones as a bound."""
    if value is None:
        return "—"
    return "<1e-6" if value < 1e-6 else f"{value:.2g}"
