"""Attention calibration (ACT, 2406.15765): find sinks in the middle of prompts, and the heads that gain from less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Result, Want

from ..analyses.intervals import bootstrap_mean
from ..core.errors import TaskError
from ..core.ids import HeadId
from ..edits.calibrate_sinks import CalibrateSinks
from .accuracy import batch_accuracy
from .batches import PromptSet, check_prompts, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope

PromptSinks = Mapping[HeadId, tuple[int, ...]]
"""Query head → positions of its sinks in one prompt, in order; heads without sinks are absent."""


@dataclass(frozen=True, eq=False)
class HeadChoice:
    """What calibrating each head alone does to accuracy.

    Attributes:
        heads: those whose mean accuracy rises, in order. Some rise by chance: measure them on other prompts.
        tested: every head that was tried.
        baseline: `[prompts]` accuracy without calibration, 0..1.
        change: `[tested]` mean change of accuracy, -1..1.
        low: `[tested]` lower end of its 95% bootstrap interval over prompts; NaN with fewer than two prompts.
        high: `[tested]` upper end, likewise.
        prompts: `[tested]` prompts in which the head has a sink; elsewhere calibration changes nothing.
        sinks: of every prompt.
    """

    heads: tuple[HeadId, ...]
    tested: tuple[HeadId, ...]
    baseline: np.ndarray
    change: np.ndarray
    low: np.ndarray
    high: np.ndarray
    prompts: np.ndarray
    sinks: list[PromptSinks]


def act_sinks(
    scope: Scope,
    prompts: PromptSet,
    mode: Literal["paper", "repo"] = "paper",
    *,
    alpha: float = 5.0,
    threshold: float = 0.1,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> list[PromptSinks]:
    """Return each prompt's sinks, head by head; the first token is never one (2406.15765).

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`; a prompt has N tokens.
        mode: `paper`: the attention that a key receives is above alpha/N of its prompt's N queries' (a key that few
            queries see is seldom a sink). `repo`: above `threshold` of the attention of the queries that see it,
            as the paper's code has it (keys at the end of a prompt, which few queries see, are often sinks).
        alpha: of `paper`, in units of uniform attention.
        threshold: of `repo`, 0..1.
        progress: called after every batch with prompts done and prompts in all.

    Returns:
        A mapping a prompt, as `CalibrateSinks` takes them: `tuple(...)` of those of a batch, or one alone.

    Raises:
        TaskError: an unknown mode, a threshold that is not positive, or empty or too long prompts.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 5, 7, 9]]})
        >>> len(act_sinks(attnscope.load(backend="toy"), prompts, "repo"))
        1
    """
    if mode not in ("paper", "repo"):
        raise TaskError("sinks to calibrate", found=f"mode {mode!r}", expected="'paper' or 'repo'")
    least = alpha if mode == "paper" else threshold
    if not least > 0:
        raise TaskError("sinks to calibrate", found=f"a threshold of {least}", expected="a positive number")
    lengths = check_prompts(prompts, scope.info.context_length)
    found: list[dict[HeadId, tuple[int, ...]]] = [{} for _ in lengths]
    done = 0
    for group in plan(lengths, batch_tokens):
        batch = make_batch(prompts, group, scope.device)
        length, place = batch.lengths[:, None], torch.arange(batch.input_ids.shape[1], device=scope.device)
        queries = (length - place).clamp(min=1)
        limit = alpha * torch.ones_like(queries) if mode == "paper" else threshold * queries
        may_be = batch.valid & (place > 0)
        masks: dict[int, Tensor] = {}

        def listen(call: AttentionCall, result: Result, limit=limit, may_be=may_be, masks=masks) -> None:  # type: ignore[no-untyped-def]
            assert result.received is not None
            masks[call.layer] = (result.received > limit[:, None]) & may_be[:, None]

        with forward(scope, batch, want=Want(received=True), implementation=implementation, listen=listen):
            scope.run(batch)
        for layer, mask in masks.items():
            for row, head, position in mask.nonzero().tolist():
                sinks = found[group[row]]
                sinks[HeadId(layer, head)] = (*sinks.get(HeadId(layer, head), ()), position)
        done += len(group)
        if progress is not None:
            progress(done, len(lengths))
    return [dict(sorted(sinks.items())) for sinks in found]


def choose_heads(
    scope: Scope,
    prompts: PromptSet,
    *,
    sinks: Sequence[PromptSinks] | None = None,
    layers: Sequence[int] | None = None,
    beta: float = 0.4,
    seed: int = 0,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> HeadChoice:
    """Calibrate one head at a time and keep those with which the model answers more (2406.15765).

    A head runs only the prompts in which it has a sink; the others cannot change.

    Args:
        scope: a loaded model.
        prompts: with columns `input_ids`, `query_positions`, `target_ids`.
        sinks: of every prompt; None finds them by `act_sinks` in mode `paper`.
        layers: whose heads are tried; None means 2 to L − 2, as in the paper.
        beta: factor on the sinks' attention, 0..1.
        seed: of the bootstrap.
        progress: called after every head with heads done and heads in all.

    Raises:
        TaskError: no such layers, sinks of another number of prompts, a beta out of range, empty or too long prompts,
            or a column is missing.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict(
        ...     {"input_ids": [[0, 5, 7]] * 2, "query_positions": [[1]] * 2, "target_ids": [[7]] * 2})
        >>> choose_heads(attnscope.load(backend="toy"), prompts, layers=[1]).change.shape
        (4,)
    """
    wanted = range(2, scope.info.n_layers - 1) if layers is None else layers
    tested = tuple(head for head in scope.info.heads if head.layer in wanted)
    absent = [] if layers is None else sorted(set(layers) - set(scope.info.attention_layers))
    if absent or not tested:
        found = f"layers {absent or list(wanted)}"
        raise TaskError("heads to calibrate", found=found, expected=f"some of {list(scope.info.attention_layers)}")
    lengths = check_prompts(prompts, scope.info.context_length)
    settings = {"implementation": implementation, "batch_tokens": batch_tokens}
    known = act_sinks(scope, prompts, **settings) if sinks is None else list(sinks)  # type: ignore[arg-type]
    if len(known) != len(lengths):
        raise TaskError("sinks", found=f"{len(known)} prompts", expected=f"{len(lengths)}, as the prompt set has")

    def measure(chosen: Sequence[int], head: HeadId | None) -> list[float]:
        share = dict.fromkeys(chosen, np.nan)
        for part in plan([lengths[i] for i in chosen], batch_tokens):
            group = [chosen[i] for i in part]
            keys = None if head is None else tuple({head: known[i][head]} for i in group)
            edits = [] if keys is None else [CalibrateSinks(keys, beta=beta)]
            batch = make_batch(prompts, group, scope.device)
            share |= zip(group, batch_accuracy(scope, batch, edits=edits, implementation=implementation), strict=True)
        return list(share.values())

    baseline = np.array(measure(range(len(lengths)), None))
    changes = np.zeros((len(lengths), len(tested)))
    counts = np.zeros(len(tested), dtype=int)
    for column, head in enumerate(tested):
        having = [i for i, each in enumerate(known) if each.get(head)]
        if having:
            changes[having, column] = np.array(measure(having, head)) - baseline[having]
        counts[column] = len(having)
        if progress is not None:
            progress(column + 1, len(tested))
    mean, (low, high) = changes.mean(0), bootstrap_mean(changes, seed=seed)
    chosen = tuple(head for head, change in zip(tested, mean, strict=True) if change > 1e-9)
    return HeadChoice(chosen, tested, baseline, mean, low, high, counts, known)
