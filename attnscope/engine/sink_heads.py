"""How much attention every head spends on sinks, and on how many queries it does nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from attnscope_kernels import AttentionCall, Result, Want

from ..core import statistics
from ..core.names import Variable
from .batches import PromptSet, check_prompts, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..models._base import Scope

DORMANT = 0.5
"""A query is spent on sinks where they take more than this share of it, strict."""
SHARES = Variable(
    "sink_attention",
    ("prompt", "layer", "head", "sink_kind"),
    "1",
    "share of a query's attention on them",
    "2410.10781",
)
DORMANCY = Variable(
    "dormant", ("prompt", "layer", "head"), "1", "fraction of queries with most attention on sinks", "2410.13835"
)


def sink_shares(
    scope: Scope,
    prompts: PromptSet,
    groups: Mapping[str, Mapping[int, Sequence[int]]],
    *,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Return the attention on each kind of sinks, and the fraction of queries spent on sinks, per prompt and head.

    The first query of a prompt, which sees itself alone, is left out.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        groups: name of the kind → prompt → positions; no position has two kinds.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: takes tokens done and tokens in all.

    Returns:
        xarray.Dataset: `sink_attention` (prompt, layer, head, sink_kind), mean over queries, 0..1, and `dormant`
        (prompt, layer, head), 0..1; NaN for a prompt of one token.

    Raises:
        TaskError: empty or too long prompts.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]]})
        >>> sink_shares(attnscope.load(backend="toy"), prompts, {"primary": {0: [0]}}).dormant.dims
        ('prompt', 'layer', 'head')
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    info, done = scope.info, 0
    shape = (len(prompts), len(info.attention_layers), info.n_heads)
    shares, dormant = np.full((*shape, len(groups)), np.nan), np.full(shape, np.nan)
    for chosen in plan(lengths, batch_tokens):
        batch = make_batch(prompts, chosen, scope.device)
        of_key = _kinds(batch, chosen, groups)
        counted = batch.valid.clone()
        counted[torch.arange(len(chosen)), batch.starts.cpu()] = False
        want = Want(mass_in={"sinks": of_key}) if bool((of_key >= 0).any()) else Want()

        def listen(call: AttentionCall, result: Result, chosen=chosen, counted=counted) -> None:  # type: ignore[no-untyped-def]
            kept, row = counted.to(call.q.device)[:, None, :, None], info.rows[call.layer]
            number = kept.sum((1, 2, 3)).double()
            mass = result.mass_in.get("sinks")
            if mass is None:
                mass = call.q.new_zeros(*call.q.shape[:3], 1, dtype=torch.float32)
            mass = mass.where(kept & ~mass.isnan(), 0.0)
            mean = mass.sum(2, dtype=torch.float64) / number[:, None, None]
            spent = (mass.sum(-1) > DORMANT).sum(-1) / number[:, None]
            shares[chosen, row] = 0.0
            shares[chosen, row, :, : mean.shape[2]] = mean.cpu().numpy()
            dormant[chosen, row] = spent.cpu().numpy()

        with forward(scope, batch, want=want, implementation=implementation, listen=listen):
            scope.run(batch)
        done += sum(lengths[i] for i in chosen)
        if progress is not None:
            progress(done, sum(lengths))
    single = np.array(lengths) < 2
    shares[single], dormant[single] = np.nan, np.nan
    return statistics.dataset(info, [(SHARES, shares), (DORMANCY, dormant)], coords={"sink_kind": list(groups)})


def _kinds(batch: Batch, chosen: Sequence[int], groups: Mapping[str, Mapping[int, Sequence[int]]]) -> Tensor:
    """Return the kind of every key `[B, T]`, -1 where it is no sink."""
    of_key = torch.full_like(batch.input_ids, -1)
    starts = batch.starts.tolist()
    for index, group in enumerate(groups.values()):
        for row, prompt in enumerate(chosen):
            of_key[row, [starts[row] + position for position in group.get(prompt, ())]] = index
    return of_key
