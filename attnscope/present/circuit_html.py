"""One self-contained HTML page of a circuit report, and its sections for other pages."""

from __future__ import annotations

from typing import Any

from ..core.circuit_report import CircuitReport
from . import figures, views
from .page import _circuit_quality, _circuit_tests, _circuit_units, _circuits, _origin
from .page._circuit_units import MOST
from .page._shell import shell
from .style import swaps
from .views.circuit_graph import circuit_graphs
from .views.circuit_units import measured_units, metric_words

SECTIONS = (
    ("circuits-tasks", "Tasks", _circuits.tasks_section),
    ("circuits-dissociation", "Dissociation", _circuit_tests.dissociation_section),
    ("circuits-heads", "Heads", _circuit_units.heads_section),
    ("circuits-blocks", "Blocks", _circuit_units.blocks_section),
    ("circuits-neurons", "Neurons", _circuit_units.neurons_section),
    ("circuits-curves", "Size", _circuit_tests.curves_section),
    ("circuits-alone", "Alone", _circuit_quality.alone_section),
    ("circuits-overlap", "Overlap", _circuit_quality.overlap_section),
    ("circuits-transfer", "Transfer", _circuit_tests.transfer_section),
    ("circuits-graph", "Graph", _circuit_quality.graph_section),
    ("circuits-setup", "Setup", _circuits.setup_section),
)
"""Place, name in the bar, and what makes each section; one without data makes none."""


def circuit_page(report: CircuitReport) -> str:
    """Return the page of a circuit report: opens offline, loads nothing, light and dark."""
    sections = circuit_sections(report)
    return shell(
        report.model,
        report.provenance,
        title="circuits",
        nav=(*((place, name) for place, name, _ in sections), ("provenance", "Provenance")),
        body=(_circuits.hero(report), *(body for _, _, body in sections), _origin.provenance_section(report)),
        beside="The same numbers are in circuits.json, circuits.parquet and statistics/ beside this page.",
        data={"figures": circuit_figures(report), "swaps": swaps()},
        scripts=("charts.js",),
    )


def circuit_sections(report: CircuitReport) -> tuple[tuple[str, str, str], ...]:
    """Return (place, name, HTML) of every section that there is data for; charts read `circuit_figures`."""
    made = ((place, name, make(report)) for place, name, make in SECTIONS)
    return tuple(item for item in made if item[2])


def circuit_figures(report: CircuitReport) -> dict[str, Any]:
    """Return every figure that there is data for, by the name that the sections use, as plotly's JSON."""
    found = {}
    if scatter := views.unit_scatter(report):
        found["circuits-scatter"] = figures.unit_scatter_figure(scatter)
    if grids := views.effect_grids(report):
        found["circuits-grid"] = figures.score_heatmap(grids, diverging=True)
    for level in report.levels:
        if level.level == "layer":
            if lines := measured_units(report, "layer"):
                found["circuits-blocks"] = figures.block_effects(lines, metric_words(level))
        elif lines := views.top_units(report, level.level, MOST[level.level]):
            found[f"circuits-top-{level.level}"] = figures.unit_dots(lines, metric_words(level))
    if dissociations := views.dissociation_views(report):
        found["circuits-dissociation"] = figures.dissociation_bars(dissociations)
    for name in views.curve_levels(report):
        found[f"circuits-curves-{name}"] = figures.circuit_curves(views.circuit_lines(report, name))
    if curves := views.faithfulness_lines(report):
        found["circuits-faithfulness"] = figures.faithfulness_curves(curves)
    for i, graph in enumerate(circuit_graphs(report)):
        found[f"circuits-graph-{i}"] = figures.circuit_graph_figure(graph)
    return {name: figure.to_plotly_json() for name, figure in found.items()}
