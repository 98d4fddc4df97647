"""The job of `attnscope gates`: needles → trained gates → what they keep → a run folder."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .core.errors import TaskError
from .core.gate_report import GateReport, KeptAccuracy, check_gate_run, write_gate_run
from .core.track import Track, silent
from .engine.accuracy import token_accuracy
from .engine.gates.duo_attention import DuoAttention, Per
from .engine.gates.hardkuma import HardKuma
from .engine.gates.kept import kept_accuracy
from .engine.gates.statistics import train_gates
from .models._loading import load, require_causal
from .provenance import provenance
from .tasks._answers import with_answers
from .tasks.needle import Needle
from .tasks.passkeys import Passkeys

if TYPE_CHECKING:
    import xarray as xr

    from .core.model_info import ModelInfo
    from .models._base import Scope

BUDGETS = (0.25, 0.5)
"""Shares of KV heads that stay full when gates are checked."""
GATE = {"duo_attention": "duo_gate", "hardkuma": "hardkuma_mean"}


@dataclass(frozen=True)
class GatePlan:
    """What gates are trained, and on what.

    Attributes:
        method: `duo_attention` or `hardkuma`.
        steps: training steps; None takes 200 or 300.
        tokens: of a training prompt; shorter where the model's context is.
        needles: codes to remember in each.
        prompts: different training prompts; every one is seen once, then again in another order.
        sink_tokens: first keys that a streaming (sparse) head sees.
        recent_tokens: last keys that it sees; None takes an eighth of the prompt, 16 at least.
        learning_rate: None takes the method's.
        target: density of HardKuma gates.
        constraint: λ of HardKuma gates at the start; None takes the method's.
        per: what has a gate.
        checked: held-out needles on which accuracy is measured with the largest gates full; 0 for none.
        checked_tokens: length of those.
        draws: random choices beside them.
        seed: of everything random.

    Raises:
        TaskError: an unknown method, or fewer than 0 needles to check.
    """

    method: Literal["duo_attention", "hardkuma"] = "duo_attention"
    steps: int | None = None
    tokens: int = 512
    needles: int = 5
    prompts: int = 24
    sink_tokens: int = 4
    recent_tokens: int | None = None
    learning_rate: float | None = None
    target: float = 1 / 12
    constraint: float | None = None
    per: Per = "kv_head"
    checked: int = 10
    checked_tokens: int = 1024
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in GATE:
            raise TaskError("method of gates", found=repr(self.method), expected=f"one of {', '.join(GATE)}")
        if self.checked < 0 or self.draws < 0:
            raise TaskError("check of gates", found=f"{self.checked} needles, {self.draws} draws", expected="0 or more")

    def length(self, info: ModelInfo) -> int:
        """Return tokens of a training prompt."""
        return min(self.tokens, info.context_length or self.tokens)

    def settings(self, info: ModelInfo) -> DuoAttention | HardKuma:
        """Return the method with this plan's settings."""
        recent = max(16, self.length(info) // 8) if self.recent_tokens is None else self.recent_tokens
        chosen: dict[str, Any] = {
            "steps": self.steps,
            "sink_tokens": self.sink_tokens,
            "recent_tokens": recent,
            "learning_rate": self.learning_rate,
            "per": self.per,
            "seed": self.seed,
        }
        if self.method == "hardkuma":
            chosen |= {"target": self.target, "constraint": self.constraint}
        given = {name: value for name, value in chosen.items() if value is not None}
        return HardKuma(**given) if self.method == "hardkuma" else DuoAttention(**given)


def train_run(
    scope: Scope | None = None,
    plan: GatePlan | None = None,
    *,
    out: str | Path | None = None,
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
    partial = target.with_name(f"{target.name}.partial") if target is not None else None
    info, method = scope.info, plan.settings(scope.info)
    task = Passkeys(n=plan.prompts, seed=plan.seed, length=plan.length(info), needles=plan.needles)
    held = Needle(n=max(1, plan.checked), seed=plan.seed, length=_checked_length(plan, info))
    if prompts is None and scope.tokenizer is None:
        raise TaskError(
            f"needles for {info.model_id}",
            found="a model without a tokenizer",
            expected="a tokenizer, or prompts of your own",
            fix="Pass prompts=... with input_ids, query_positions and target_ids from Python.",
        )
    chosen = task.build(scope.tokenizer) if prompts is None else prompts
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
        sets["held-out"] = (held if prompts is None else None, checks)
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


def _checked_length(plan: GatePlan, info: ModelInfo) -> int:
    return min(plan.checked_tokens, info.context_length or plan.checked_tokens)


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


def cost(info: ModelInfo, plan: GatePlan) -> tuple[int, float]:
    """Return how many tokens a run sends through the model, and about how many multiply-adds that is.

    A training step counts twice, forward and back (weights get no gradient); attention counts twice, full and cut.

    Example:
        >>> import attnscope
        >>> cost(attnscope.load(backend="toy").info, GatePlan(steps=10, checked=0))[0]
        29696
    """
    length, steps = plan.length(info), plan.settings(info).steps
    checked = plan.checked * (1 + len(BUDGETS) * (1 + plan.draws))
    passes = [(2 * plan.prompts, length), (steps, length), (steps, length), (checked, _checked_length(plan, info))]
    tokens = sum(count * size for count, size in passes)
    pairs = sum(count * size**2 / 2 for count, size in passes)
    attention = 4 * pairs * info.head_dim * info.n_heads * len(info.attention_layers)
    return (2 * plan.prompts + steps) * length + checked * _checked_length(plan, info), (
        tokens * (info.n_parameters or 0) + attention
    )
