"""How heads use sinks, and how the primary sink weakens."""

from __future__ import annotations

from ...core.sink_report import SinkReport
from ..figures.dormant_heads import dormant_height
from ..figures.scores import heatmap_height
from ..views.dormant_heads import dormant_view
from ..views.sink_heads import service_grids, weakening_rows
from . import _markup as m


def heads_section(report: SinkReport) -> str:
    """Return the layer × head grid and the primary share with and without secondary sinks."""
    lede = "A head is dormant on a query when most of its attention rests on sinks."
    grid, weaker = m.panel(_grid(report), "Heads"), m.panel(_weakening(report), "Weakening")
    prompts = m.panel(_dormant(report), "By prompt")
    body = f'<div class="stack"><div class="two stretch">{grid}{weaker}</div>{prompts}</div>'
    return m.section("sink-heads", "Heads that rest on sinks", lede, body)


def _grid(report: SinkReport) -> str:
    grids = service_grids(report)
    if not grids:
        return m.not_measured("no head's attention on sinks was collected")
    select = (
        '<div class="controls"><label for="sink-service">Show</label>'
        '<select id="sink-service" data-for="sink-services"></select></div>'
    )
    note = '<p class="note">A cross is a head that was not measured; it is not 0.</p>'
    return select + m.chart("sink-services", heatmap_height(len(grids[0].layers))) + note


def _dormant(report: SinkReport) -> str:
    view = dormant_view(report)
    if view is None:
        return m.not_measured("dormancy differs between prompts only where there are two prompts or more")
    note = "The heads whose dormancy differs most between prompts, the most variable first."
    if view.hidden:
        note += f" {view.hidden:,} steadier heads are in sinks.json."
    return m.chart("sink-dormant", dormant_height(len(view.heads))) + f'<p class="note">{m.text(note)}</p>'


def _weakening(report: SinkReport) -> str:
    rows = weakening_rows(report)
    if not rows:
        return m.not_measured("no layer was compared with and without secondary sinks")
    absent = [row for row in rows if row.with_secondary.value is None]
    note = "Where the lines part, the primary sink loses attention to secondary sinks."
    if absent:
        note += f" Not measured with secondary sinks in {len(absent)} of {len(rows)} layers: "
        note += absent[0].with_secondary.reason or "no reason given"
        note += "."
    return m.chart("sink-weakening", 340) + f'<p class="note">{m.text(note)}</p>'
