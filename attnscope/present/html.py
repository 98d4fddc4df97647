"""One self-contained HTML page of a report: opens offline, loads nothing, light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..core.report import HeadReport
from ..core.retrieval_report import RetrievalReport
from ..core.sink_report import SinkReport
from .page import _evidence, _heads, _origin, _payload
from .page._shell import shell
from .retrieval_html import retrieval_figures, retrieval_sections
from .sink_html import sink_figures, sink_sections

if TYPE_CHECKING:
    import xarray as xr

NAV = (
    ("heads", "Heads"),
    ("labels", "Labels"),
    ("causal", "Causal"),
    ("sinks", "Sinks"),
    ("residual", "Residual"),
    ("decode", "Decode"),
    ("rules", "Rules"),
    ("provenance", "Provenance"),
)


def render(
    report: HeadReport,
    statistics: Mapping[str, xr.Dataset],
    sink_report: SinkReport | None = None,
    retrieval_report: RetrievalReport | None = None,
) -> str:
    """Return the page.

    Args:
        report: the report.
        statistics: prompt set → dataset; what is absent is said to be not measured.
        sink_report: the same model's sink report; its sections follow the head report's own sinks.
        retrieval_report: the same model's retrieval report; its sections follow the causal checks.
    """
    data = _payload.payload(report, statistics)
    if sink_report is not None:
        data["figures"] |= sink_figures(sink_report)
    if retrieval_report is not None:
        data["figures"] |= retrieval_figures(retrieval_report)
    body = (
        _heads.hero(report, statistics),
        _heads.grid_section(report, _evidence.scores_panel(report)),
        _heads.labels_section(report),
        _evidence.causal_section(report),
        *(retrieval_sections(retrieval_report) if retrieval_report is not None else ()),
        _evidence.sinks_section(report),
        *(sink_sections(sink_report) if sink_report is not None else ()),
        _evidence.residual_section(report, statistics),
        _evidence.profiles_section(report, statistics),
        _evidence.decode_section(report),
        _origin.rules_section(report),
        _origin.missing_section(report),
        _origin.provenance_section(report),
    )
    return shell(
        report.model,
        report.provenance,
        title="what every head does",
        nav=NAV if retrieval_report is None else (*NAV[:3], ("retrieval-needles", "Retrieval"), *NAV[3:]),
        body=body,
        beside="The same numbers are in report.json, heads.csv and statistics/ beside this page.",
        data=data,
        scripts=("charts.js", "heads.js"),
    )
