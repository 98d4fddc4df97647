"""One self-contained HTML page of a frequency report, and its sections for other pages."""

from __future__ import annotations

from typing import Any

from ..core.frequency_report import FrequencyReport
from . import figures, views
from .page import _frequency, _origin
from .page._shell import shell
from .style import swaps

NAV = (
    ("frequency-chunks", "Chunks"),
    ("frequency-choices", "Choosing keys"),
    ("frequency-tasks", "Tasks"),
    ("frequency-definitions", "Definitions"),
    ("provenance", "Provenance"),
)


def frequency_page(report: FrequencyReport) -> str:
    """Return the page of a frequency report: opens offline, loads nothing, light and dark."""
    return shell(
        report.model,
        report.provenance,
        title="frequency chunks",
        nav=NAV,
        body=(_frequency.hero(report), *frequency_sections(report), _origin.provenance_section(report)),
        beside="The same numbers are in frequency.json and statistics/ beside this page.",
        data={"figures": frequency_figures(report), "swaps": swaps()},
        scripts=("charts.js",),
    )


def frequency_sections(report: FrequencyReport) -> tuple[str, ...]:
    """Return the sections, HTML; their charts read `frequency_figures` from the page's data."""
    return (
        _frequency.chunks_section(report),
        _frequency.choices_section(report),
        _frequency.tasks_section(report),
        _frequency.definitions_section(report),
    )


def frequency_figures(report: FrequencyReport) -> dict[str, Any]:
    """Return every figure that there is data for, by the name that the sections use, as plotly's JSON."""
    found = {}
    if chunks := views.chunk_map(report):
        found["frequency-map"] = figures.chunk_map_figure(chunks)
        found["frequency-grid"] = figures.score_heatmap(views.chunk_grids(report))
        if curves := views.chunk_curves(report):
            found["frequency-waves"] = figures.chunk_lines(curves)
    if lines := views.choice_lines(report):
        found["frequency-choices"] = figures.choice_lines_figure(lines)
    if matrix := views.overlap_matrix(report):
        found["frequency-overlap"] = figures.overlap_figure(matrix)
    return {name: figure.to_plotly_json() for name, figure in found.items()}
