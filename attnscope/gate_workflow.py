"""The job of `attnscope gates`: needles → trained gates → what they keep → a run folder."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .core.errors import TaskError
from .core.gate_report import GateReport, KeptAccuracy, check_gate_run, write_gate_run
from .core.track import Track, silent
from .engine.accuracy import token_accuracy
from .engine.gates.duo_attention import DuoAttention
from .engine.gates.hardkuma import HardKuma
from .engine.gates.kept import kept_accuracy
from .engine.gates.statistics import train_gates
from .gate_plan import BUDGETS, GATE, GatePlan
from .models._loading import load, require_causal
from .provenance import provenance
from .tasks._answers import with_answers
from .tasks.needle import Needle
from .tasks.passkeys import Passkeys

if TYPE_CHECKING:
    import xarray as xr

    from .core.model_info import ModelInfo
    from .models._base import Scope


def train_run(
    scope: Scope | None = None,
    plan: GatePlan | None = None,
    *,
    out: str | Path | None = None,
    partial: Path | None = None,
    prompts: Any = None,
    checks: Any = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> tuple[GateReport, xr.Dataset]:
    """Train gates on needles, and measure what a model keeps of its answers with the largest ones full.

    With `out`, an interrupted run goes on from `<out>.partial` and ends with the same gates.

    Args:
        scope: a loaded causal model; None loads the embedded one.
        plan: what to train.
        out: write a run folder there.
        partial: keep the checkpoint in this folder instead.
        prompts: your own training prompts with `input_ids`, `query_positions` and `target_ids`.
        checks: your own held-out prompts with the same columns; without them, own training prompts are not checked.
        implementation: kernel implementation of the check (training goes through attention that has gradients).
        batch_tokens: padded tokens a batch of the check at most.
        track: progress, see `core.track.Track`.
        command: recorded in the provenance.

    Raises:
        UnsupportedModelError: the model is not causal, or its attention cannot be mixed.
        TaskError: no tokenizer and no prompts of your own; no room for the needles; a loss that is no number.
        DeviceError: the device ran out of memory.
        OutputError: `out` cannot be written or holds other files, or its checkpoint is of another run.

    Example:
        >>> report, statistics = train_run(plan=GatePlan(steps=100))  # doctest: +SKIP
    """
    scope, plan, track = scope or load(), plan or GatePlan(), track or silent
    require_causal(scope, "training gates")
    target = check_gate_run(out) if out is not None else None
    if target is not None:
        partial = target.with_name(f"{target.name}.partial")
    info, method = scope.info, plan.settings(scope.info)
    task = Passkeys(n=plan.prompts, seed=plan.seed, length=plan.length(info), needles=plan.needles)
    held = Needle(n=max(1, plan.checked), seed=plan.seed, length=plan.checked_length(info))
    if prompts is None and scope.tokenizer is None:
        raise TaskError(
            f"needles for {info.model_id}",
            found="a model without a tokenizer",
            expected="a tokenizer, or prompts of your own",
            fix="Pass prompts=... with input_ids, query_positions and target_ids from Python.",
        )
    chosen = task.build(scope.tokenizer) if prompts is None else prompts
    own_checks = checks is not None
    if prompts is None and checks is None and plan.checked:
        checks = with_answers(held.build(scope.tokenizer))
    options: dict[str, Any] = {"implementation": implementation, "batch_tokens": batch_tokens}
    with track("Answering with full attention", 1):
        answered = float(token_accuracy(scope, chosen, **options).mean())
    with track(f"Training {plan.method} gates", method.steps) as advance:
        checkpoint = None if partial is None else partial / "gates.safetensors"
        statistics = train_gates(scope, chosen, method, checkpoint=checkpoint, progress=lambda done, _: advance(done))
    full, kept = _check(scope, plan, method, statistics, checks, track, options)
    sets: dict[str, tuple[Any, Any]] = {"training": (task if prompts is None else None, chosen)}
    if checks is not None:
        sets["held-out"] = (None if own_checks else held, checks)
    report = GateReport(
        model=info,
        method=plan.method,
        source=method.source,
        settings=asdict(method),
        gate=GATE[plan.method],
        gates=tuple(tuple(map(float, row)) for row in statistics[GATE[plan.method]].values),
        kv_reduction=statistics.attrs["kv_reduction"],
        read_site=statistics.attrs["read_site"],
        final_losses={k.removeprefix("final_"): v for k, v in statistics.attrs.items() if k.startswith("final_")},
        answer_accuracy=answered,
        full_accuracy=full,
        kept=kept,
        provenance=provenance(scope, plan.seed, sets, ["tiled"], command, _notes(info, answered)),
    )
    statistics.attrs["answer_accuracy"] = answered
    if target is not None and partial is not None:
        write_gate_run(target, report, statistics)
        shutil.rmtree(partial, ignore_errors=True)
    return report, statistics


def _check(
    scope: Scope,
    plan: GatePlan,
    method: DuoAttention | HardKuma,
    statistics: xr.Dataset,
    checks: Any,
    track: Track,
    options: dict[str, Any],
) -> tuple[float | None, tuple[KeptAccuracy, ...]]:
    """Return the full model's accuracy on held-out needles, and that with the largest gates full."""
    if checks is None:
        return None, ()
    gates, rows = statistics[GATE[plan.method]].values, []
    with track("Answering with the largest gates full", len(BUDGETS)) as advance:
        full = float(token_accuracy(scope, checks, **options).mean())
        for done, budget in enumerate(BUDGETS, 1):
            window = {"sinks": method.sink_tokens, "recent": method.recent_tokens}
            one = kept_accuracy(scope, checks, gates, budget, draws=plan.draws, seed=plan.seed, **window, **options)
            rows.append(
                KeptAccuracy(
                    budget=budget,
                    full_heads=one.full,
                    accuracy=one.accuracy,
                    controls=tuple(np.asarray(one.controls, dtype=float)),
                    controls_exclude_chosen=one.excluded,
                )
            )
            advance(done)
    return full, tuple(rows)


def _notes(info: ModelInfo, answered: float) -> tuple[str, ...]:
    notes = []
    if answered < 1:
        notes.append(
            f"The full model predicts {answered:.1%} of the answer tokens. Gates keep its hidden states, right or "
            "wrong, so they speak of retrieval only as far as it retrieves."
        )
    if info.weights == "random":
        notes.append("The weights are random: gates say what hidden states depend on, nothing about retrieval.")
    return tuple(notes)
