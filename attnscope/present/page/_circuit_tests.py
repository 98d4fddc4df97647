"""Circuits ablated together: dissociation, accuracy over size, transfer."""

from __future__ import annotations

from ...core.circuit_report import CircuitReport
from ..figures.circuit_dissociation import dissociation_height
from ..figures.retrieval_curves import CIRCUIT_COLUMNS, curves_height
from ..views.circuit_summary import p_words
from ..views.circuit_tests import DissociationView, circuit_lines, curve_levels, dissociation_views, transfer_rows
from ..views.circuit_units import LEVEL_WORDS
from ..views.points import Point
from ..views.retrieval_curves import ComparedLine
from ..wording import capital
from . import _markup as m
from ._circuits import change, lost, names
from ._retrieval import with_interval


def dissociation_section(report: CircuitReport) -> str:
    """Return every double dissociation; nothing where none was measured."""
    views = dissociation_views(report)
    if not views:
        return ""
    lede = (
        "Each circuit ablated alone, on both tasks. Δ is what its own task loses minus what the other loses; prompts "
        "of the two tasks are resampled independently. Random others come from the same layers."
    )
    chart = m.panel(m.chart("circuits-dissociation", dissociation_height(views)))
    body = f'<div class="stack">{chart}{"".join(map(_verdict, views))}</div>'
    source = m.citation("2510.03366", "https://arxiv.org/abs/2510.03366")
    return m.section(
        "circuits-dissociation", "Double dissociation", lede, f'{body}<p class="note">Source: {source}.</p>'
    )


def _verdict(view: DissociationView) -> str:
    columns = ("Circuit", "Own task loses, points", "Other task loses", "Δ", "Random Δ, range", "Verdict")
    rows = (
        (
            m.text(side.circuit),
            lost(side.own.drop),
            lost(side.other.drop),
            change(side.delta),
            _range(side.delta_draws),
            m.text(side.verdict),
        )
        for side in view.sides
    )
    table = m.table(columns, rows, right=range(1, 5))
    which = "".join(f"<dt>{m.text(side.circuit)}</dt><dd>{names(side.units)}</dd>" for side in view.sides)
    loose = "" if view.layer_matched else " Some random draws took units of the nearest layers."
    return m.panel(
        f'<h3>{m.text(view.title)} <span class="verdict">{m.text(view.verdict)}</span></h3>{table}'
        f'<p class="note">{m.text(view.sentence + loose)}</p>'
        f'<details><summary>Which units</summary><dl class="dl">{which}</dl></details>'
    )


def _range(draws: tuple[float, ...]) -> str:
    if not draws:
        return "no control"
    low, high = change(Point(min(draws))), change(Point(max(draws)))
    return low if len(draws) == 1 else f'<span class="nobreak">{low} to {high}</span>'


def curves_section(report: CircuitReport) -> str:
    """Return accuracy over circuit size, level by level; nothing where no curve was measured."""
    levels = curve_levels(report)
    if not levels:
        return ""
    lede = "Circuits of growing size ablated, each measured on both tasks; as many random others are the control."
    body = "".join(_curves(report, level) for level in levels)
    return m.section("circuits-curves", "Accuracy over circuit size", lede, f'<div class="stack">{body}</div>')


def _curves(report: CircuitReport, level: str) -> str:
    lines = circuit_lines(report, level)
    chart = m.chart(f"circuits-curves-{level}", curves_height(lines, CIRCUIT_COLUMNS))
    note = '<p class="note">Bars: intervals over prompts. A cross is one random draw.</p>'
    tables = "".join(map(_table, lines))
    loose = any(not item.layer_matched for line in lines for item in line.points)
    why = '<p class="note">* Some random draws took units of the nearest layers.</p>' if loose else ""
    details = f"<details><summary>Every point as a table</summary>{tables}{why}</details>"
    return m.panel(f"{chart}{note}{details}", capital(LEVEL_WORDS[level][1]))


def _table(line: ComparedLine) -> str:
    rows = (
        (
            f"{len(item.heads)}{'' if item.layer_matched else '*'}",
            with_interval(item.accuracy),
            change(item.change),
            with_interval(item.control),
            m.text(item.verdict + (f": {item.control.reason}" if item.control.reason else "")),
        )
        for item in line.points
    )
    columns = ("Units", "Accuracy", "Change, points", "Random, mean", "Accuracy is")
    return m.table(columns, rows, line.title, right=range(4))


def transfer_section(report: CircuitReport) -> str:
    """Return edits taken from one task and measured on another; nothing where none was made."""
    rows = transfer_rows(report)
    if not rows:
        return ""
    lede = "An edit that one task's circuit suggests, measured on another task."
    columns = ("Edit", "Taken from", "Measured on", "Before", "After", "Change, points", "p", "Random, mean")
    cells = (
        (
            m.text(row.edit, 200),
            m.text(row.source),
            m.text(row.task),
            with_interval(row.before),
            with_interval(row.after),
            change(row.change),
            m.text(p_words(row.p)),
            with_interval(row.control) if row.control.value is not None else m.text(row.control.reason or "—"),
        )
        for row in rows
    )
    which = "".join(f"<dt>{m.text(row.edit, 200)}</dt><dd>{names(row.units)}</dd>" for row in rows if row.units)
    units = f'<details><summary>Which units</summary><dl class="dl">{which}</dl></details>' if which else ""
    table = m.table(columns, cells, right=range(3, 8))
    return m.section("circuits-transfer", "Transfer", lede, m.panel(table + units))
