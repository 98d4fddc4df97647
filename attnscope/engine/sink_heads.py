"""How much attention every head spends on sinks, and on how many queries it does nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from attnscope_kernels import AttentionCall, Result, Want

from .batches import PromptSet, check_prompts, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope

DORMANT = 0.5
"""A query is spent on sinks where they take more than this share of it, strict."""


def sink_shares(
    scope: Scope,
    prompts: PromptSet,
    groups: Sequence[Mapping[int, Sequence[int]]],
    *,
    implementation: str = "auto",
    batch_tokens: int = 8192,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the attention on each group of sinks, and the fraction of queries spent on sinks.

    The first query of a prompt, which sees itself alone, is left out.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        groups: a mapping prompt → positions for each of N groups.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.

    Returns:
        shares `[P, L, H, N]` mean over queries, 0..1, and fractions `[P, L, H]`, 0..1; NaN for a prompt of one token.

    Raises:
        TaskError: empty or too long prompts.
        DeviceError: the device ran out of memory.
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    info = scope.info
    shape = (len(prompts), len(info.attention_layers), info.n_heads)
    shares, dormant = np.full((*shape, len(groups)), np.nan), np.full(shape, np.nan)
    for chosen in plan(lengths, batch_tokens):
        batch = make_batch(prompts, chosen, scope.device)
        of_key = torch.full_like(batch.input_ids, -1)
        starts = batch.starts.tolist()
        for index, group in enumerate(groups):
            for row, prompt in enumerate(chosen):
                of_key[row, [starts[row] + position for position in group.get(prompt, ())]] = index
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
    single = np.array(lengths) < 2
    shares[single], dormant[single] = np.nan, np.nan
    return shares, dormant
