"""Effects of heads, blocks and neurons."""

from __future__ import annotations

from ...core.circuit_report import CircuitReport
from ...core.units import Level
from ..figures.circuit_units import BLOCKS_HEIGHT, SCATTER_HEIGHT, unit_dots_height
from ..figures.scores import heatmap_height
from ..views.circuit_summary import p_words
from ..views.circuit_units import (
    LEVEL_WORDS,
    UnitLine,
    effect_grids,
    measured_units,
    top_units,
    unit_lines,
    unit_scatter,
)
from ..wording import number
from . import _markup as m
from ._circuits import with_bounds

MOST = {"head": 20, "neuron": 16}


def heads_section(report: CircuitReport) -> str:
    """Return the effect of every head on each task; nothing where heads were not measured."""
    level, lines = report.level("head"), top_units(report, "head", MOST["head"])
    if level is None:
        return ""
    lede = "Each head ablated alone. An effect is the mean drop of the metric over prompts; below 0, ablating helps."
    parts = []
    if unit_scatter(report):
        note = '<p class="note">Each mark is a head that was measured exactly; hovering shows its 95% intervals.</p>'
        parts.append(m.panel(m.chart("circuits-scatter", SCATTER_HEIGHT) + note, "One task against the other"))
    grids = effect_grids(report)
    if grids:
        select = (
            '<div class="controls"><label for="circuits-effect">Show</label>'
            '<select id="circuits-effect" data-for="circuits-grid"></select></div>'
        )
        note = '<p class="note">A cross is a head that was not measured; it is not 0.</p>'
        chart = m.chart("circuits-grid", heatmap_height(len(grids[0].layers)))
        parts.append(m.panel(select + chart + note, "Every head"))
    if lines:
        parts.append(_largest(report, "head", lines))
    else:
        parts.append(m.panel(m.not_measured("no head has an effect that was measured")))
    return m.section("circuits-heads", "Heads", lede, f'<div class="stack">{"".join(parts)}</div>')


def blocks_section(report: CircuitReport) -> str:
    """Return the effect of every block's attention and MLP; nothing where they were not measured."""
    lines = measured_units(report, "layer")
    if not lines:
        return ""
    lede = "The whole attention or the whole MLP of one block ablated, over depth."
    body = m.panel(m.chart("circuits-blocks", BLOCKS_HEIGHT) + _details(report, lines, "Every block as a table"))
    return m.section("circuits-blocks", "Blocks", lede, body)


def neurons_section(report: CircuitReport) -> str:
    """Return the neurons with the largest effects; nothing where they were not measured."""
    level, lines = report.level("neuron"), top_units(report, "neuron", MOST["neuron"])
    if level is None or not lines:
        return ""
    all_of_them = level.n_exact == level.n_units
    which = f"All {level.n_units:,}" if all_of_them else f"{level.n_exact:,} of {level.n_units:,}"
    lede = f"{which} MLP neurons ablated one by one, each on its own."
    return m.section("circuits-neurons", "Neurons", lede, _largest(report, "neuron", lines))


def _largest(report: CircuitReport, level: Level, lines: list[UnitLine]) -> str:
    many = LEVEL_WORDS[level][1]
    chart = m.chart(f"circuits-top-{level}", unit_dots_height(len(lines)))
    rest = len(unit_lines(report, level)) - len(lines)
    more = f'<p class="note">{rest:,} more in circuits.parquet.</p>' if rest else ""
    title = f"The {len(lines)} {many} with the largest effects"
    return m.panel(f"{chart}{_details(report, lines, 'The same as a table')}{more}", title)


def _details(report: CircuitReport, lines: list[UnitLine], summary: str) -> str:
    tasks = list(lines[0].drops)
    scores = list(dict.fromkeys(name for line in lines for name in line.scores))
    columns = ["Unit", *(part for task in tasks for part in (f"Effect on {task}", "q")), *scores, "In the circuit of"]
    rows = (
        (
            m.text(line.name),
            *(
                cell
                for task in tasks
                for cell in (with_bounds(line.drops[task].point), m.text(p_words(line.drops[task].q)))
            ),
            *(number(line.scores[name].value) if name in line.scores else "—" for name in scores),
            m.text(", ".join(line.chosen) or "—"),
        )
        for line in lines
    )
    table = m.table(columns, rows, right=range(1, len(columns) - 1))
    note = '<p class="note">q: Benjamini-Hochberg over all units of this level that were measured.</p>'
    return f"<details><summary>{m.text(summary)}</summary>{table}{note}</details>"
