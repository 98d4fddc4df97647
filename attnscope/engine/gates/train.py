"""The one training loop of all gates: AdamW on the gates alone, a prompt a step, resumable without a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from attnscope_kernels import Tap

from ...core.errors import TaskError
from ...core.model_info import ModelInfo
from ..batches import PromptSet, check_prompts, fingerprint
from .checkpoint import GateCheckpoint, State
from .targets import Targets, frozen, query_positions

if TYPE_CHECKING:
    from ...models._base import Scope


class Method(Protocol):
    """How one kind of gate is trained; a frozen dataclass whose fields are its settings."""

    @property
    def steps(self) -> int:
        """Training steps."""
        ...

    @property
    def learning_rate(self) -> float:
        """At its highest."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...

    @property
    def curves(self) -> tuple[str, ...]:
        """What `penalty` notes of every step."""
        ...

    def initial(self, info: ModelInfo) -> dict[str, Tensor]:
        """Return the gates' parameters before the first step, float32, each `[L, G or H]`."""
        ...

    def tap(self, info: ModelInfo, gates: dict[str, Tensor], step: int, positions: list[int]) -> Tap:
        """Return the tap that mixes attention by the gates of one step."""
        ...

    def penalty(self, gates: dict[str, Tensor], scalars: dict[str, float]) -> tuple[Tensor, dict[str, float]]:
        """Return what is added to the distillation loss, and what to note in the curves; may change the scalars."""
        ...

    def clamp(self, gates: dict[str, Tensor]) -> None:
        """Bring the gates back into their range, in place."""
        ...


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training run gives.

    Attributes:
        gates: parameter → `[L, G or H]`.
        curves: name → `[steps]`.
        scalars: at the end.
    """

    gates: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    scalars: dict[str, float]


def rate_at(step: int, steps: int) -> float:
    """Return the factor on the learning rate: up over a fifth of the steps, down over the last fifth, never below 0.1.

    As in the code of DuoAttention and LycheeDecode.

    Example:
        >>> [rate_at(step, 10) for step in (0, 1, 5, 9)]
        [0.5, 1.0, 1.0, 0.5]
    """
    fifth = max(1, steps // 5)
    return min(1.0, max((step + 1) / fifth, 0.1), max((steps - step) / fifth, 0.1))


def prompt_at(step: int, n_prompts: int, seed: int) -> int:
    """Return the prompt of a step: every prompt once, in random order, then again in another.

    Example:
        >>> sorted(prompt_at(step, 4, seed=0) for step in range(4))
        [0, 1, 2, 3]
    """
    turn, place = divmod(step, n_prompts)
    return int(np.random.default_rng([seed, turn]).permutation(n_prompts)[place])


def train(
    scope: Scope,
    prompts: PromptSet,
    method: Method,
    *,
    checkpoint: str | Path | None = None,
    every: float = 5.0,
    progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train gates against the full model's own hidden states; only the gates change.

    The loss compares a model with itself, so it needs no right answers: it is defined for random weights too, where
    it says what their hidden states depend on and nothing about retrieval.

    Args:
        scope: a loaded causal model.
        prompts: with columns `input_ids` and `query_positions`.
        method: kind of gates and its settings.
        checkpoint: file that keeps the run; a run that was interrupted goes on from there and ends with the same
            gates as an unbroken one.
        every: least seconds between two writes of the checkpoint.
        progress: called with (steps done, steps in all).

    Raises:
        TaskError: unfit prompts; or the loss is no number.
        UnsupportedModelError: attention that gates cannot mix.
        OutputError: the checkpoint is corrupt, of another run, or cannot be written.
        DeviceError: the device ran out of memory.
    """
    check_prompts(prompts, scope.info.context_length)
    identity = repr((scope.info.model_dump_json(), fingerprint(prompts), query_positions(prompts), method))
    kept = GateCheckpoint(checkpoint, identity, every)
    targets = Targets(scope, prompts)
    run = _Run(method, scope, kept.restore())
    with frozen(scope.model), torch.enable_grad():
        while run.step < method.steps:
            run.advance(targets)
            if kept.due() and run.step < method.steps:
                kept.save(run.state())
            if progress is not None:
                progress(run.step, method.steps)
    kept.save(run.state())
    return run.result()


class _Run:
    """Gates, optimiser and curves between two steps."""

    def __init__(self, method: Method, scope: Scope, state: State | None) -> None:
        self.method, self.info = method, scope.info
        start = method.initial(scope.info)
        self.step = 0 if state is None else state.step
        self.scalars: dict[str, float] = {} if state is None else dict(state.scalars)
        held = {} if state is None else state.tensors
        self.gates = {
            name: held.get(f"gate.{name}", gate).to(scope.device).requires_grad_() for name, gate in start.items()
        }
        self.curves: dict[str, list[float]] = {
            name: held[f"curve.{name}"].tolist() if f"curve.{name}" in held else [] for name in self._curve_names()
        }
        self.optimizer = torch.optim.AdamW(list(self.gates.values()), lr=method.learning_rate, weight_decay=0.0)
        if self.step:
            for name, gate in self.gates.items():
                self.optimizer.state[gate] = {
                    "step": torch.tensor(float(self.step)),
                    **{key: held[f"{key}.{name}"].to(scope.device) for key in ("exp_avg", "exp_avg_sq")},
                }

    def _curve_names(self) -> tuple[str, ...]:
        return ("distillation", "penalty", *self.method.curves)

    def advance(self, targets: Targets) -> None:
        """Do one step."""
        method, step = self.method, self.step
        prompt = prompt_at(step, len(targets.positions), method.seed)
        tap = method.tap(self.info, self.gates, step, targets.positions[prompt])
        distillation = targets.loss(prompt, tap)
        penalty, noted = method.penalty(self.gates, self.scalars)
        found = float(distillation.detach())
        if not np.isfinite(found):
            raise TaskError(
                f"distillation loss of step {step} on prompt {prompt}",
                found=found,
                expected="a finite number",
                fix="Load the model in float32; if it stays, its hidden states overflow on this prompt.",
            )
        self.optimizer.param_groups[0]["lr"] = method.learning_rate * rate_at(step, method.steps)
        gates = list(self.gates.values())
        with targets.explained(prompt):
            (distillation + penalty.to(distillation.device)).backward(inputs=gates)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            method.clamp(self.gates)
        for name, value in {"distillation": found, "penalty": float(penalty.detach()), **noted}.items():
            self.curves[name].append(value)
        self.step += 1

    def state(self) -> State:
        """Return everything that the next step depends on."""
        tensors = {f"curve.{name}": torch.tensor(x, dtype=torch.float64) for name, x in self.curves.items()}
        for name, gate in self.gates.items():
            tensors[f"gate.{name}"] = gate.detach()
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"{key}.{name}"] = self.optimizer.state[gate][key]
        return State(self.step, tensors, dict(self.scalars))

    def result(self) -> Trained:
        """Return the gates as arrays."""
        return Trained(
            {name: gate.detach().double().cpu().numpy() for name, gate in self.gates.items()},
            {name: np.array(values) for name, values in self.curves.items()},
            dict(self.scalars),
        )
