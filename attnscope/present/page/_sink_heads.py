"""How heads use sinks, and how the primary sink weakens."""

from __future__ import annotations

from ...core.sink_report import SinkReport
from ..figures.scores import heatmap_height
from ..views.sink_heads import service_grids, weakening_rows
from . import _markup as m


def heads_section(report: SinkReport) -> str:
    """Return the layer × head grid and the primary share with and without secondary sinks."""
    lede = "A head is dormant on a query when most of its attention rests on sinks."
    body = f'<div class="two stretch">{m.panel(_grid(report), "Heads")}{m.panel(_weakening(report), "Weakening")}</div>'
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
