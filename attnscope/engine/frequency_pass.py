"""One pass over prompts that shows, layer by layer, the calls of sampled queries, with dimensions paired by chunk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Result

from ..collectors._base import State
from .batches import PromptSet, check_prompts, fingerprint, make_batch, plan
from .checkpoint import Checkpoint
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sampling:
    """Which queries are measured: `queries` a prompt at most, drawn from those that see enough keys.

    A query counts for a budget of K keys if it sees at least 2 K: with fewer, any K of them agree by chance on more
    than half. The same queries serve every budget, so they see at least twice the largest K that the prompt allows.

    Attributes:
        budgets: K, keys a query, ascending.
        queries: a prompt, at most.
        seed: of the draw; a prompt's queries depend on the seed, its index and its length alone.
    """

    budgets: tuple[int, ...]
    queries: int = 16
    seed: int = 0

    def draw(self, prompt: int, length: int) -> np.ndarray:
        """Return `[queries]` ascending positions; -1 where there are fewer.

        Example:
            >>> Sampling((4, 8, 16), queries=3).draw(0, 17)
            array([15, 16, -1])
        """
        found = np.full(self.queries, -1)
        allowed = [budget for budget in self.budgets if 2 * budget <= length]
        if allowed:
            enough = np.arange(2 * max(allowed) - 1, length)
            count = min(self.queries, len(enough))
            random = np.random.default_rng((self.seed, prompt))
            found[:count] = np.sort(random.choice(enough, count, replace=False))
        return found


@dataclass(frozen=True, eq=False)
class SampledCall:
    """One layer's attention of one batch.

    Attributes:
        call: q and k with each head's dimensions reordered: chunk c is made of entries c and c + D / 2.
        row: of the layer in statistics.
        prompts: the B prompts' indices.
        queries: `[B, S]` sampled positions, -1 where there is none.
        visible: `[B, S]` keys that each sees; 0 where there is none.
    """

    call: AttentionCall
    row: int
    prompts: tuple[int, ...]
    queries: Tensor
    visible: Tensor

    def counted(self, budget: int) -> Tensor:
        """Return `[B, S]` whether a query sees at least 2 × budget keys."""
        return self.visible >= 2 * budget


def sampled_pass(
    scope: Scope,
    prompts: PromptSet,
    layers: Sequence[int],
    order: Sequence[int],
    sampling: Sampling,
    state: State,
    see: Callable[[SampledCall], str | None],
    *,
    identity: Any,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> set[str]:
    """Show every layer's sampled calls to `see`, which fills `state`; finished prompts are kept in the checkpoint.

    Args:
        scope: a loaded causal model.
        prompts: with a column `input_ids`.
        layers: that are shown.
        order: of a head's dimensions, see `Rotary.order`.
        sampling: which queries.
        state: name → array whose rows are prompts.
        see: takes a call, and may name an implementation that it used.
        identity: what the state depends on besides model, prompts and sampling; JSON.
        implementation: kernel implementation of the forward.
        batch_tokens: padded tokens a batch at most.
        progress: takes tokens done and tokens in all.
        checkpoint: a file to go on from.

    Returns:
        set: names of the implementations that ran, also before an interruption.

    Raises:
        TaskError: empty or too long prompts.
        DeviceError: the device ran out of memory.
        OutputError: the checkpoint is corrupt or of another measurement.
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    info = scope.info
    named = [info.model_dump_json(), fingerprint(prompts), asdict(sampling), list(layers), list(order), identity]
    kept = Checkpoint(checkpoint, json.dumps(named))
    done, ran = kept.restore({"frequency": state})
    finished = sum(lengths[i] for i in done)
    for group in plan(lengths, batch_tokens):
        todo = [index for index in group if index not in done]
        if not todo:
            continue
        batch = make_batch(prompts, todo, scope.device)
        queries = torch.from_numpy(np.stack([sampling.draw(index, lengths[index]) for index in todo]))

        def listen(call: AttentionCall, result: Result, todo=todo, queries=queries) -> None:  # type: ignore[no-untyped-def]
            ran.add(result.implementation)
            if call.layer in layers:
                used = see(_sampled(call, info.rows[call.layer], todo, queries, order))
                ran.update([used] if used else [])

        with forward(scope, batch, implementation=implementation, listen=listen):
            scope.run(batch)
        done |= set(todo)
        finished += sum(lengths[i] for i in todo)
        if progress is not None:
            progress(finished, sum(lengths))
        kept.save({"frequency": state}, done, ran, last=len(done) == len(lengths))
    return ran


def _sampled(
    call: AttentionCall, row: int, prompts: Sequence[int], queries: Tensor, order: Sequence[int]
) -> SampledCall:
    at = queries.to(call.q.device)
    index = torch.tensor(order, device=call.q.device)
    paired = replace(call, q=call.q.index_select(-1, index), k=call.k.index_select(-1, index))
    sees = at + 1 if call.window is None else (at + 1).clamp(max=call.window)
    return SampledCall(paired, row, tuple(prompts), at, torch.where(at >= 0, sees, 0))


def mean_over_queries(values: Tensor, counted: Tensor) -> np.ndarray:
    """Return the mean of `[B, H, S, …]` over the counted queries `[B, S]`, float64; NaN where none counts.

    Example:
        >>> mean_over_queries(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[True, False]]))
        array([[1.]])
    """
    shape = (counted.shape[0], 1, counted.shape[1], *(1 for _ in values.shape[3:]))
    kept = counted.view(shape) & ~values.isnan()
    total = values.double().where(kept, 0.0).sum(2)
    mean: np.ndarray = (total / kept.sum(2)).cpu().numpy()  # 0 / 0 is NaN
    return mean
