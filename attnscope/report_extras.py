"""The reports inside a head report, smaller than their own commands': sinks, retrieval heads, frequency chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from .core.errors import TaskError, UnsupportedModelError
from .core.frequency_report import FrequencyReport
from .core.gate_report import STATISTICS, GateReport
from .core.report import Missing
from .core.retrieval_report import RetrievalReport
from .core.sink_report import SinkReport
from .core.track import Track
from .frequency_workflow import measure_frequency
from .gate_workflow import train_run
from .quick_plans import SINK_PROMPTS, quick_frequency, quick_gates, quick_retrieval, quick_sinks
from .report_plan import ReportPlan
from .retrieval_workflow import measure_retrieval
from .sink_workflow import sink_report

if TYPE_CHECKING:
    from .models._base import Scope


@dataclass(frozen=True)
class Extras:
    """What was measured beside the head report; a `Missing` says why a part was not, None that it was not wanted."""

    sinks: SinkReport | None = None
    retrieval: RetrievalReport | Missing | None = None
    frequency: FrequencyReport | Missing | None = None
    gates: tuple[GateReport, ...] = ()
    statistics: dict[str, xr.Dataset] = field(default_factory=dict)

    def files(self) -> dict[str, str]:
        """Return the reports as files of the run, by name."""
        named = {"sinks.json": self.sinks, "retrieval.json": self.retrieval, "frequency.json": self.frequency}
        gates = {f"gates-{part.method}.json": part.to_json() for part in self.gates}
        return gates | {
            name: part.to_json() for name, part in named.items() if part is not None and not isinstance(part, Missing)
        }


def extras(
    scope: Scope,
    plan: ReportPlan,
    text: Any,
    partial: Path | None,
    *,
    implementation: str,
    batch_tokens: int,
    track: Track,
    command: str | None,
) -> Extras:
    """Measure what the plan wants beside the head report.

    Args:
        scope: the model.
        plan: of the head report.
        text: its text prompts, or None.
        partial: keep finished parts there.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        track: progress.
        command: recorded in the provenance.

    Raises:
        DeviceError: the device ran out of memory.
        OutputError: the finished parts are another job's.
    """
    options: dict[str, Any] = {
        "implementation": implementation,
        "batch_tokens": batch_tokens,
        "track": track,
        "command": command,
    }
    sinks: SinkReport | None = None
    if text is not None and plan.wants_sinks(max(len(ids) for ids in text["input_ids"])):
        sinks = sink_report(
            scope,
            quick_sinks(plan),
            partial=_below(partial, "sinks"),
            prompts=text.select(range(min(SINK_PROMPTS, len(text)))),
            **options,
        )
    retrieval, statistics = _retrieval(scope, plan, partial, options)
    frequency, more = _frequency(scope, plan, partial, options)
    gates, trained = _gates(scope, plan, partial, options)
    return Extras(sinks, retrieval, frequency, gates, statistics | more | trained)


def _retrieval(
    scope: Scope, plan: ReportPlan, partial: Path | None, options: dict[str, Any]
) -> tuple[RetrievalReport | Missing | None, dict[str, xr.Dataset]]:
    if not plan.retrieval:
        return None, {}
    quick = quick_retrieval(plan, scope.info)
    try:
        report, statistics = measure_retrieval(scope, quick, partial=_below(partial, "retrieval"), **options)
    except (TaskError, UnsupportedModelError) as error:
        return Missing(reason=str(error)), {}
    statistics.pop("needle", None)  # the head report has its own needles
    return report, statistics


def _frequency(
    scope: Scope, plan: ReportPlan, partial: Path | None, options: dict[str, Any]
) -> tuple[FrequencyReport | Missing | None, dict[str, xr.Dataset]]:
    if not plan.frequency:
        return None, {}
    quick = quick_frequency(plan, scope.info)
    try:
        return measure_frequency(scope, quick, partial=_below(partial, "frequency"), **options)
    except (TaskError, UnsupportedModelError) as error:
        return Missing(reason=str(error)), {}


def _gates(
    scope: Scope, plan: ReportPlan, partial: Path | None, options: dict[str, Any]
) -> tuple[tuple[GateReport, ...], dict[str, xr.Dataset]]:
    reports, statistics = [], {}
    for quick in quick_gates(plan):
        report, data = train_run(scope, quick, partial=_below(partial, quick.method), **options)
        reports.append(report)
        statistics[STATISTICS[quick.method]] = data
    return tuple(reports), statistics


def _below(partial: Path | None, name: str) -> Path | None:
    return None if partial is None else partial / name
