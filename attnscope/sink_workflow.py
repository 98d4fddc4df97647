"""The job of `attnscope sinks`: prompts → sinks, levels, writers, tests of the writes, residual sinks → a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .analyses.residual_runs import Run, Thresholds, runs
from .core.errors import UnsupportedModelError
from .core.report import Missing
from .core.sink_report import ResidualSinks, SinkReport, WriteTest
from .core.sink_run import check_sink_run, write_sink_run
from .core.stages import Stages
from .core.track import Track, counted, percent, silent
from .engine.batches import check_prompts, fingerprint
from .engine.loss import next_token_loss
from .engine.residual_sinks import residual_sinks
from .engine.sink_heads import sink_shares
from .engine.sink_trace import trace
from .models._loading import load, require_causal
from .provenance import provenance
from .reports.sink_traces import residual_traces
from .reports.sinks import Evidence, attention_sinks, estimate, head_services, joined, weakening
from .sink_evidence import find_writers
from .sink_plan import RESIDUAL_PROMPTS, SinkPlan
from .sink_write_tests import levels_to_test, measure_write

if TYPE_CHECKING:
    from .models._base import Scope

__all__ = ["SinkPlan", "sink_report"]


def sink_report(
    scope: Scope | None = None,
    plan: SinkPlan | None = None,
    *,
    out: str | Path | None = None,
    partial: str | Path | None = None,
    prompts: Any = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> SinkReport:
    """Find attention sinks and residual sinks, who writes them, and what they are for.

    Args:
        scope: a loaded causal model; None loads the embedded one.
        plan: what to measure.
        out: write a run folder there; an interrupted call goes on from `<out>.partial` when it is repeated.
        partial: keep finished parts there instead.
        prompts: your own `datasets.Dataset` with `input_ids`.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        track: progress, see `core.track.Track`.
        command: recorded in the provenance.

    Raises:
        UnsupportedModelError: the model is not causal.
        TaskError: the text is missing, empty, too short or too long; or hidden states overflow the dtype.
        DeviceError: the device ran out of memory.
        OutputError: `out` cannot be written or holds other files, or the finished parts are another job's.

    Example:
        >>> import attnscope
        >>> sink_report().of_kind("primary")[0].position  # doctest: +SKIP
        0
    """
    scope, plan, track = scope or load(), plan or SinkPlan(), track or silent
    require_causal(scope, "the sink report")
    if out is not None:
        target = check_sink_run(out)
        partial = partial or target.with_name(f"{target.name}.partial")
    task = plan.task(scope) if prompts is None else None
    chosen = task.build(scope.tokenizer) if task is not None else prompts
    lengths = check_prompts(chosen, scope.info.context_length)
    stages = Stages(partial, f"{scope.info.model_dump_json()}{fingerprint(chosen)}{plan}")
    options: dict[str, Any] = {"implementation": implementation, "batch_tokens": batch_tokens}
    thresholds = Thresholds(mode=plan.mode)
    with track("Tracing sinks", sum(lengths)) as advance:
        shown = counted(advance)
        traced = stages.keep_dataset("trace", lambda: trace(scope, chosen, **options, progress=shown))
    found, untold = runs(traced, thresholds)
    with track("Reading who writes them", 1):
        evidence, unknown = stages.keep(
            "writers",
            tuple[list[Evidence], list[str]],
            lambda: find_writers(scope, chosen, found, thresholds, options),
        )
    decode = scope.tokenizer.decode if scope.tokenizer is not None else str
    sinks, levels = joined(traced, evidence, untold, thresholds, chosen["input_ids"], decode)
    groups = _kinds([one.run for one in evidence], attention_sinks(traced, thresholds))
    with track("Heads that rest on sinks", sum(lengths)) as advance:
        shown = counted(advance)
        used = stages.keep_dataset("heads", lambda: sink_shares(scope, chosen, groups, **options, progress=shown))
    losses, without_head = stages.keep(
        "losses", tuple[list[float], str | None], lambda: _losses(scope, chosen, options)
    )
    tests: list[WriteTest] = []
    for tested in levels_to_test(evidence) if plan.interventions and without_head is None else []:
        with track(f"Testing what {tested.module} {tested.layer} writes", 100) as advance:
            hundredths = percent(advance)
            test = stages.keep(
                f"level-{tested.level}",
                WriteTest | None,
                lambda tested=tested, hundredths=hundredths: measure_write(  # type: ignore[misc]
                    scope, chosen, tested, traced, thresholds, plan, options, hundredths
                ),
            )
        tests += [test] if test is not None else []
    with track("Residual sinks", 100) as advance:
        hundredths = percent(advance)
        residual = stages.keep(
            "residual-sinks",
            ResidualSinks | Missing,
            lambda: _residual_sinks(scope, chosen, plan, without_head, options, hundredths),
        )
    primary = Counter((e.run.first, e.run.lifetime) for e in evidence if e.run.kind == "primary").most_common(1)
    present = {kind: [prompt in groups[kind] for prompt in range(len(lengths))] for kind in ("primary", "secondary")}
    report = SinkReport(
        model=scope.info,
        mode=plan.mode,
        thresholds=asdict(thresholds),
        n_prompts=len(lengths),
        n_tokens=sum(lengths),
        loss=estimate(np.array(losses), without_head or "no prompt has a second token"),
        primary_layers=primary[0][0] if primary else None,
        levels=levels,
        traces=residual_traces(traced, sinks),
        sinks=sinks,
        heads=head_services(scope.info, used, present),
        weakening=weakening(traced, sinks),
        writes=tuple(tests),
        residual_sinks=residual,
        provenance=provenance(
            scope,
            plan.seed,
            {"text": (task, chosen)},
            [traced.attrs["implementation"]],
            command,
        ),
        notes=tuple(_notes(scope, chosen, untold, unknown)),
    )
    if out is not None:
        from .present.sink_html import sink_page

        write_sink_run(out, report, {"trace": traced, "sink_heads": used}, lambda: sink_page(report))
        stages.clear()
    return report


def _losses(scope: Scope, prompts: Any, options: dict[str, Any]) -> tuple[list[float], str | None]:
    try:
        return next_token_loss(scope, prompts, **options).tolist(), None
    except UnsupportedModelError as error:
        return [float("nan")] * len(prompts), str(error)


def _kinds(found: Sequence[Run], attended: Sequence[tuple[int, int]]) -> dict[str, dict[int, list[int]]]:
    """Return kind → prompt → positions of all sinks."""
    groups: dict[str, dict[int, list[int]]] = {"primary": {}, "secondary": {}, "other": {}}
    kinds = {(run.prompt, run.position): run.kind for run in found}
    for prompt, position in sorted({*kinds, *attended}):
        kind = kinds.get((prompt, position), "other")
        groups[kind if kind in groups else "other"].setdefault(prompt, []).append(position)
    return groups


def _residual_sinks(
    scope: Scope, prompts: Any, plan: SinkPlan, without_head: str | None, options: dict[str, Any], progress: Any
) -> ResidualSinks | Missing:
    return residual_sinks(
        scope,
        prompts.select(range(min(RESIDUAL_PROMPTS, len(prompts)))),
        mode=plan.mode,
        draws=plan.draws,
        interventions=plan.interventions and without_head is None,
        seed=plan.seed,
        progress=progress,
        **options,
    )


def _notes(scope: Scope, prompts: Any, untold: dict[int, str], unknown: Sequence[str]) -> list[str]:
    notes = [*(f"Prompt {prompt}: {reason}." for prompt, reason in untold.items()), *unknown]
    if len(prompts) > RESIDUAL_PROMPTS:
        notes.append(f"Residual sinks are measured on the first {RESIDUAL_PROMPTS} of {len(prompts)} prompts.")
    bos = scope.info.bos_token_id
    if bos is not None and any(ids[0] != bos for ids in prompts["input_ids"]):
        notes.append("Some prompts do not begin with BOS: their primary sink, if any, is an ordinary token.")
    return notes
