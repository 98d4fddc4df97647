"""The job of `attnscope circuit`: what every unit does for each task → circuits → what is lost without them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from .circuit_evidence import Evidence
from .circuit_measures import METRIC, UNITS, Measures
from .circuit_plan import CircuitPlan
from .core.circuit_report import CircuitReport
from .core.errors import TaskError, UnsupportedModelError
from .core.stages import Stages
from .core.track import Track, silent
from .engine.batches import fingerprint
from .models._loading import load, require_causal
from .provenance import provenance
from .reports.circuits import circuit_task

if TYPE_CHECKING:
    from .models._base import Scope

FEW_RIGHT = 0.5


def circuit_report(
    scope: Scope | None = None,
    plan: CircuitPlan | None = None,
    *,
    out: str | Path | None = None,
    prompts: Mapping[str, Any] | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> CircuitReport:
    """Measure what every head, block and neuron does for each task, and what is lost without the circuits they make.

    Args:
        scope: a loaded causal transformers model; None loads the embedded one.
        plan: what to measure.
        out: write a run folder there; an interrupted call goes on from `<out>.partial` when it is repeated.
        prompts: your own pairs by task, one or two `datasets.Dataset` with `input_ids`, `corrupt_ids`, `answer_ids` and
            `wrong_ids`, in place of the plan's tasks.
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most.
        track: progress, see `core.track.Track`.
        command: recorded in the provenance.

    Raises:
        UnsupportedModelError: the model is not causal.
        TaskError: no tokenizer, or pairs cannot be made with it.
        DeviceError: the device ran out of memory.
        OutputError: `out` cannot be written or holds other files, or the finished parts are another job's.

    Example:
        >>> circuit_report().dissociations[0].verdict  # doctest: +SKIP
        'double'
    """
    from .core.circuit_run import check_circuit_run, write_circuit_run

    target = None if out is None else check_circuit_run(out)
    partial = None if target is None else target.with_name(f"{target.name}.partial")
    report, statistics = measure_circuits(
        scope or load(),
        plan or CircuitPlan(),
        partial=partial,
        prompts=prompts,
        implementation=implementation,
        batch_tokens=batch_tokens,
        track=track,
        command=command,
    )
    if target is not None and partial is not None:
        from .present.circuit_html import circuit_page

        write_circuit_run(target, report, statistics, lambda: circuit_page(report))
        shutil.rmtree(partial, ignore_errors=True)
    return report


def measure_circuits(
    scope: Scope,
    plan: CircuitPlan,
    *,
    partial: str | Path | None = None,
    prompts: Mapping[str, Any] | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> tuple[CircuitReport, dict[str, xr.Dataset]]:
    """Return the report and its statistics, one dataset a level and task (`head-recall`, …).

    Args:
        partial: keep finished parts there.
        prompts: as in `circuit_report`.

    Raises:
        As `circuit_report`.
    """
    info = scope.info
    require_causal(scope, "the circuit report")
    sets = _given(prompts) if prompts is not None else _built(scope, plan)
    chosen = {name: pairs for name, (_, pairs) in sets.items()}
    prints = [fingerprint(pairs) for pairs in chosen.values()]
    stages = Stages(partial, f"{info.model_dump_json()}{prints}{plan}")
    options: dict[str, Any] = {"implementation": implementation, "batch_tokens": batch_tokens}
    measures = Measures(scope, plan, chosen, stages, track or silent, options)
    tasks, notes = [], []
    for name, pairs in chosen.items():
        right, clean, corrupt = measures.both(name)
        tasks.append(circuit_task(name, right, clean, corrupt, [len(ids) for ids in pairs["input_ids"]]))
        if right.mean() < FEW_RIGHT:
            notes.append(
                f"The model answers {right.mean():.0%} of the {name} prompts: what its units do for a task that it does"
                " not do says little."
            )
    evidence = Evidence(measures)
    statistics: dict[str, xr.Dataset] = {}
    for level in plan.levels:
        try:
            statistics |= evidence.add_level(level)
        except UnsupportedModelError as error:
            evidence.missing[level] = str(error)
    evidence.add_quality()
    evidence.add_transfers()
    evidence.add_edges()
    report = CircuitReport(
        model=info,
        tasks=tuple(tasks),
        levels=tuple(evidence.levels),
        circuits=tuple(evidence.circuits),
        dissociations=tuple(evidence.dissociations),
        curves=tuple(evidence.curves),
        faithfulness=tuple(evidence.faithfulness),
        quality=tuple(evidence.quality),
        overlaps=tuple(evidence.overlaps),
        transfers=tuple(evidence.transfers),
        edges=tuple(evidence.edges),
        edge_method="eap-ig" if evidence.edges else None,
        missing=evidence.missing,
        provenance=provenance(scope, plan.seed, sets, [implementation], command, tuple(notes)),
        notes=(*notes, *_about(plan, tuple(chosen))),
    )
    return report, statistics


def _built(scope: Scope, plan: CircuitPlan) -> dict[str, tuple[Any, Any]]:
    if scope.tokenizer is None:
        raise TaskError("circuit report", found="a model without a tokenizer", expected="one", fix="Pass --tokenizer.")
    return plan.build(scope.tokenizer)


def _given(prompts: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    if not 1 <= len(prompts) <= 2:
        raise TaskError("prompts of a circuit report", found=f"{len(prompts)} tasks", expected="one or two")
    return {name: (None, pairs) for name, pairs in prompts.items()}


def _about(plan: CircuitPlan, names: Sequence[str]) -> tuple[str, ...]:
    tasks = " and ".join(names)
    what = {
        "mean": "its mean over all tokens of these prompts",
        "zero": "zero",
        "resample": "its value on another prompt of the same length",
    }[plan.ablation]
    return (
        f"Ablation puts {what} in a unit's place, at every token. Effects are drops of the {METRIC.replace('_', ' ')}"
        f" ({UNITS}) on half of the {tasks} prompts; the other half tests the circuits.",
    )
