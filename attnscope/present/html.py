"""One self-contained HTML page of a report: opens offline, loads nothing, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..core.frequency_report import FrequencyReport
from ..core.gate_report import GateReport
from ..core.report import HeadReport, Missing
from ..core.retrieval_report import RetrievalReport
from ..core.sink_report import SinkReport
from .frequency_html import frequency_figures, frequency_sections
from .page import _evidence, _gates, _heads, _origin, _payload
from .page import _markup as m
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
    retrieval_report: RetrievalReport | Missing | None = None,
    frequency_report: FrequencyReport | Missing | None = None,
    gate_reports: Sequence[GateReport] = (),
) -> str:
    """Return the page.

    Args:
        report: the report.
        statistics: prompt set → dataset; what is absent is said to be not measured.
        sink_report: the same model's sink report; its sections follow the head report's own sinks.
        retrieval_report: the same model's retrieval report, after the causal checks, or why there is none.
        frequency_report: the same model's frequency chunks, after the profiles, or why there are none.
        gate_reports: the same model's trained gates, before the decode plan.
    """
    data = _payload.payload(report, statistics)
    nav = list(NAV)
    retrieval: tuple[str, ...] = ()
    frequency: tuple[str, ...] = ()
    if sink_report is not None:
        data["figures"] |= sink_figures(sink_report)
    if isinstance(retrieval_report, RetrievalReport):
        data["figures"] |= retrieval_figures(retrieval_report)
        retrieval = retrieval_sections(retrieval_report)
        nav.insert(3, ("retrieval-needles", "Retrieval"))
    elif retrieval_report is not None:
        retrieval = (_absent("retrieval-needles", "Retrieval heads", retrieval_report),)
    if isinstance(frequency_report, FrequencyReport):
        data["figures"] |= frequency_figures(frequency_report)
        frequency = frequency_sections(frequency_report)
        nav.insert(-3, ("frequency-chunks", "Chunks"))
    elif frequency_report is not None:
        frequency = (_absent("frequency-chunks", "Frequency chunks", frequency_report),)
    body = (
        _heads.hero(report, statistics),
        _heads.grid_section(report, _evidence.scores_panel(report)),
        _heads.labels_section(report),
        _evidence.causal_section(report),
        *retrieval,
        _evidence.sinks_section(report),
        *(sink_sections(sink_report) if sink_report is not None else ()),
        _evidence.residual_section(report, statistics),
        _evidence.profiles_section(report, statistics),
        *frequency,
        _gates.gates_section(gate_reports),
        _evidence.decode_section(report),
        _origin.rules_section(report),
        _origin.missing_section(report),
        _origin.provenance_section(report),
    )
    return shell(
        report.model,
        report.provenance,
        title="what every head does",
        nav=nav,
        body=body,
        beside="The same numbers are in the JSON files, heads.csv and statistics/ beside this page.",
        data=data,
        scripts=("charts.js", "heads.js"),
    )


def _absent(place: str, title: str, reason: Missing) -> str:
    return m.section(place, title, "", m.panel(m.not_measured(reason.reason)))
