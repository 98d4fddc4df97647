"""One self-contained HTML page of a sink report, and its sections for other pages."""

from __future__ import annotations

from typing import Any

from ..core.report import Missing
from ..core.sink_report import SinkReport
from . import figures, views
from .page import _origin, _residual_sinks, _sink_heads, _sink_writes, _sinks
from .page._shell import shell
from .style import swaps

NAV = (
    ("sink-map", "Sinks"),
    ("sink-levels", "Levels"),
    ("sink-writers", "Writers"),
    ("sink-tests", "Without them"),
    ("sink-heads", "Heads"),
    ("residual-sinks", "Residual"),
    ("sink-thresholds", "Thresholds"),
    ("provenance", "Provenance"),
)


def sink_page(report: SinkReport) -> str:
    """Return the page of a sink report: opens offline, loads nothing, light and dark."""
    return shell(
        report.model,
        report.provenance,
        title="attention sinks and residual sinks",
        nav=NAV,
        body=(_sinks.hero(report), *sink_sections(report), _origin.provenance_section(report)),
        beside="The same numbers are in sinks.json, sinks.parquet and statistics/ beside this page.",
        data={"figures": sink_figures(report), "swaps": swaps()},
        scripts=("charts.js",),
    )


def sink_sections(report: SinkReport) -> tuple[str, ...]:
    """Return the sections, HTML; their charts read `sink_figures` from the page's data."""
    return (
        _sinks.map_section(report),
        _sinks.levels_section(report),
        _sink_writes.writers_section(report),
        _sink_writes.tests_section(report),
        _sink_heads.heads_section(report),
        _residual_sinks.residual_section(report),
        _sinks.thresholds_section(report),
    )


def sink_figures(report: SinkReport) -> dict[str, Any]:
    """Return every figure that there is data for, by the name that the sections use, as plotly's JSON."""
    found = {}
    if maps := views.sink_maps(report):
        found["sink-map"] = figures.sink_map_figure(maps)
    if rows := views.level_rows(report):
        found["sink-spans"] = figures.level_spans(rows)
        if any(row.measured for row in rows):
            found["sink-shares"] = figures.level_lines(rows)
    if traces := views.trace_rows(report):
        found["sink-norms"] = figures.trace_norm_lines(traces)
        if any(value is not None for row in traces for value in row.cosine):
            found["sink-cosines"] = figures.trace_cosine_lines(traces)
    if weakening := views.weakening_rows(report):
        found["sink-weakening"] = figures.weakening_lines(weakening)
    if grids := views.service_grids(report):
        found["sink-services"] = figures.score_heatmap(grids)
    if dormant := views.dormant_view(report):
        found["sink-dormant"] = figures.dormant_map(dormant)
    if writers := views.writer_views(report):
        found["sink-writers"] = figures.writer_bars(writers)
    if writes := views.write_views(report):
        found["sink-effects"] = figures.effect_dots([view.effect for view in writes])
        if any(view.curve for view in writes):
            found["sink-curves"] = figures.write_curves(writes)
    return {name: figure.to_plotly_json() for name, figure in (found | _residual_figures(report)).items()}


def _residual_figures(report: SinkReport) -> dict[str, Any]:
    view = views.residual_sink_view(report)
    found: dict[str, Any] = {}
    if isinstance(view, Missing):
        return found
    if view.reads:
        found["residual-reads"] = figures.read_scores(view)
        found["residual-bound"] = figures.rescaling_lines(view)
        found["residual-direct"] = figures.direct_lines(view)
    if view.effects:
        found["residual-effects"] = figures.effect_dots(view.effects)
    if view.bars:
        found["residual-bars"] = figures.quantisation_bars(view.bars)
    return found
