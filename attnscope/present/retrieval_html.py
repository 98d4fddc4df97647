"""One self-contained HTML page of a retrieval report, and its sections for other pages."""

from __future__ import annotations

from typing import Any

from ..core.report import Missing
from ..core.retrieval_report import RetrievalReport
from . import figures, views
from .page import _origin, _retrieval, _retrieval_heads, _retrieval_tests
from .page._shell import shell
from .style import swaps

NAV = (
    ("retrieval-needles", "Needles"),
    ("retrieval-heads", "Heads"),
    ("retrieval-measures", "Measures"),
    ("retrieval-ablation", "Without them"),
    ("retrieval-budgets", "Budgets"),
    ("retrieval-setup", "Setup"),
    ("provenance", "Provenance"),
)


def retrieval_page(report: RetrievalReport) -> str:
    """Return the page of a retrieval report: opens offline, loads nothing, light and dark."""
    return shell(
        report.model,
        report.provenance,
        title="retrieval heads",
        nav=NAV,
        body=(_retrieval.hero(report), *retrieval_sections(report), _origin.provenance_section(report)),
        beside="The same numbers are in retrieval.json, retrieval.parquet and statistics/ beside this page.",
        data={"figures": retrieval_figures(report), "swaps": swaps()},
        scripts=("charts.js",),
    )


def retrieval_sections(report: RetrievalReport) -> tuple[str, ...]:
    """Return the sections, HTML; their charts read `retrieval_figures` from the page's data."""
    return (
        _retrieval.needles_section(report),
        _retrieval_heads.heads_section(report),
        _retrieval_heads.measures_section(report),
        _retrieval_tests.ablation_section(report),
        _retrieval_tests.budgets_section(report),
        _retrieval.setup_section(report),
    )


def retrieval_figures(report: RetrievalReport) -> dict[str, Any]:
    """Return every figure that there is data for, by the name that the sections use, as plotly's JSON."""
    found = {}
    if grid := views.needle_grid(report):
        found["retrieval-grid"] = figures.needle_heatmap(grid)
    if lines := views.top_lines(report):
        found["retrieval-top"] = figures.head_dots(lines, report.threshold)
    if not isinstance(stable := views.stability_view(report), Missing):
        found["retrieval-stability"] = figures.stability_curve(stable)
    grids = views.retrieval_grids(report)
    if any(item.measured for item in grids):
        found["retrieval-scores"] = figures.score_heatmap(grids)
    if steps := views.ablation_lines(report):
        found["retrieval-curves"] = figures.ablation_curves(steps)
    if budgets := views.budget_lines(report):
        found["retrieval-budget"] = figures.budget_curves(budgets)
    return {name: figure.to_plotly_json() for name, figure in found.items()}
