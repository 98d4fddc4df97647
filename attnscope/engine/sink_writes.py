"""Take a sink's write away, or rescale it, and measure what happens: norm, attention, lifetime, loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import xarray as xr

from ..analyses.residual_runs import RELATIVE, Run, Thresholds, runs
from ..edits.rescale_write import RescaleWrite
from .batches import PromptSet
from .loss import next_token_loss
from .sink_trace import trace

if TYPE_CHECKING:
    from ..models._base import Scope

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)


@dataclass(frozen=True)
class Point:
    """What one factor on the write gives; see `core.sink_report.CurvePoint`."""

    factor: float
    norm: float
    share: float | None
    lifetime: float
    loss: float


@dataclass(frozen=True, eq=False)
class WriteEffects:
    """A write under test.

    Attributes:
        curve: one point a factor.
        without: `[prompts]` loss without the write, minus loss.
        random_writes: `[draws, prompts]` the same with random vectors of the write's norm in its place.
        random_positions: `[draws, prompts]` the same with the module's write removed at other positions.
        without_neurons: `[prompts]` loss with the minimal set of neurons at 0; None if not tested.
        neurons: how many that were.
    """

    curve: tuple[Point, ...]
    without: np.ndarray
    random_writes: np.ndarray
    random_positions: np.ndarray
    without_neurons: np.ndarray | None
    neurons: int | None


def write_effects(
    scope: Scope,
    prompts: PromptSet,
    sinks: Sequence[Run],
    layer: int,
    module: Literal["attention", "mlp"],
    write_norm: float,
    *,
    unedited: xr.Dataset | None = None,
    thresholds: Thresholds = RELATIVE,
    neurons: Sequence[int] | None = None,
    draws: int = 10,
    seed: int = 0,
    factors: Sequence[float] = FACTORS,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> WriteEffects:
    """Rescale what one module writes at some sinks.

    Args:
        scope: a loaded model with a vocabulary projection.
        prompts: those in which the sinks were found.
        sinks: runs of one level.
        layer: the writing block.
        module: the writing module.
        write_norm: norm of random writes.
        unedited: `trace` of the prompts; None makes it.
        thresholds: what counts as a sink.
        neurons: a minimal set to zero, or None.
        draws: random controls of each kind.
        seed: of the controls.
        factors: on the write.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: takes steps done and steps in all.

    Raises:
        TaskError: empty or too long prompts, or no sinks.
        UnsupportedModelError: the model does not show what the module adds.
        DeviceError: the device ran out of memory.
    """
    positions = _by_prompt([(sink.prompt, sink.position) for sink in sinks])
    steps, done = 2 * len(factors) + 2 * draws + (neurons is not None), 0
    options = {"implementation": implementation, "batch_tokens": batch_tokens}

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    def loss_with(edit: RescaleWrite) -> np.ndarray:
        measured = next_token_loss(scope, prompts, edits=[edit], **options)  # type: ignore[arg-type]
        advance()
        return measured

    def edit(factor: float) -> RescaleWrite:
        return RescaleWrite(layer, module, positions, factor)

    losses = {factor: loss_with(edit(factor)) for factor in sorted({*factors, 0.0, 1.0})}
    base = losses[1.0]
    curve, where = [], None
    for factor in sorted(factors, key=lambda f: f != 1.0):
        traced = unedited if factor == 1.0 else None
        if traced is None:
            traced = trace(scope, prompts, edits=[] if factor == 1.0 else [edit(factor)], **options)  # type: ignore[arg-type]
        where = _strongest(traced, sinks) if where is None else where
        curve.append(_point(traced, sinks, where, factor, losses[factor], thresholds))
        advance()
    rng = np.random.default_rng(seed)
    lengths = [len(ids) for ids in prompts["input_ids"]]
    writes, elsewhere = [], []
    for _ in range(draws):
        vector = rng.standard_normal(scope.info.d_model)
        vector *= write_norm / np.linalg.norm(vector)
        replacement = torch.tensor(vector, dtype=torch.float32)
        writes.append(loss_with(RescaleWrite(layer, module, positions, replacement=replacement)) - base)
        others = {
            prompt: tuple(int(p) for p in _others(rng, lengths[prompt], own)) for prompt, own in positions.items()
        }
        elsewhere.append(loss_with(RescaleWrite(layer, module, others, 0.0)) - base)
    stopped = None
    if neurons is not None:
        stopped = loss_with(RescaleWrite(layer, module, positions, neurons=tuple(neurons))) - base
    return WriteEffects(
        tuple(sorted(curve, key=lambda point: point.factor)),
        losses[0.0] - base,
        np.array(writes).reshape(draws, len(base)),
        np.array(elsewhere).reshape(draws, len(base)),
        stopped,
        None if neurons is None else len(neurons),
    )


def _by_prompt(where: Sequence[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
    found: dict[int, list[int]] = {}
    for prompt, position in where:
        found.setdefault(prompt, []).append(position)
    return {prompt: tuple(sorted(set(own))) for prompt, own in found.items()}


def _others(rng: np.random.Generator, length: int, own: tuple[int, ...]) -> np.ndarray:
    free = np.setdiff1d(np.arange(length), own)
    return rng.choice(free, min(len(own), len(free)), replace=False)


def _strongest(traced: xr.Dataset, sinks: Sequence[Run]) -> int:
    share = traced.received_share.values
    mean = np.nanmean([np.nan_to_num(share[sink.prompt, :, sink.position]) for sink in sinks], axis=0)
    return int(np.argmax(mean))


def _point(
    traced: xr.Dataset, sinks: Sequence[Run], where: int, factor: float, loss: np.ndarray, thresholds: Thresholds
) -> Point:
    norm = traced.residual_norm_at.values
    share = traced.received_share.values
    found, _ = runs(traced, thresholds)
    lifetimes = []
    for sink in sinks:
        alive = [
            run.lifetime
            for run in found
            if (run.prompt, run.position) == (sink.prompt, sink.position)
            and run.first < sink.first + sink.lifetime
            and sink.first < run.first + run.lifetime
        ]
        lifetimes.append(max(alive, default=0))
    own = [np.median(norm[s.prompt, s.first : s.first + s.lifetime, s.position]) for s in sinks]
    received = [share[s.prompt, where, s.position] for s in sinks]
    measured = [value for value in received if not np.isnan(value)]
    return Point(
        factor,
        float(np.median(own)),
        float(np.mean(measured)) if measured else None,
        float(np.mean(lifetimes)),
        float(np.nanmean(loss)),
    )
