"""Contextual agreement: how many of a head's top keys each of its RoPE chunks finds alone (FASA, 2602.03152)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from attnscope_kernels import AttentionCall
from attnscope_kernels.frequency import choose, contextual_agreement

from ..core import statistics
from ..core.names import Variable
from .batches import PromptSet, fingerprint
from .frequency_pass import Progress, SampledCall, Sampling, mean_over_queries, sampled_pass

if TYPE_CHECKING:
    from ..models._base import Scope
    from ..models._rotary import Rotary

AGREEMENT = Variable(
    "agreement",
    ("prompt", "budget", "layer", "head", "chunk"),
    "1",
    "contextual agreement, mean over sampled queries",
    "2602.03152",
)
CHANCE = Variable(
    "chance_agreement", ("prompt", "budget", "layer"), "1", "agreement of random keys: K over visible keys"
)


def agreement(
    scope: Scope,
    prompts: PromptSet,
    rotary: Rotary,
    sampling: Sampling,
    *,
    order: tuple[int, ...] | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> xr.Dataset:
    """Return contextual agreement of every chunk: |top K of the whole row ∩ top K of the chunk's partial logits| / K.

    Memory holds sampled queries × keys of a few chunks, never all pairs of tokens.

    Args:
        scope: a loaded causal model.
        prompts: with a column `input_ids`.
        rotary: see `models._rotary.find_rotary`.
        sampling: budgets and queries.
        order: another pairing of dimensions than the model's own, see `Rotary.order`.
        implementation: kernel implementation of the forward.
        batch_tokens: padded tokens a batch at most.
        progress: takes tokens done and tokens in all.
        checkpoint: a file to go on from.

    Returns:
        xarray.Dataset: `agreement` `[P, budgets, L, H, D / 2]` 0..1 and `chance_agreement` `[P, budgets, L]`; NaN in
        layers without RoPE and where no query sees 2 K keys.

    Raises:
        TaskError: empty or too long prompts.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> from attnscope.models._rotary import find_rotary
        >>> scope = attnscope.load(device="cpu")
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, *range(5, 40)]]})
        >>> agreement(scope, prompts, find_rotary(scope), Sampling((4,), queries=2)).agreement.shape
        (1, 1, 8, 8, 32)
    """
    info, count = scope.info, len(prompts)
    shape = (count, len(sampling.budgets), len(info.attention_layers))
    state = {
        "agreement": np.full((*shape, info.n_heads, info.head_dim // 2), np.nan),
        "chance": np.full(shape, np.nan),
    }

    def see(seen: SampledCall) -> str:
        rows = list(seen.prompts)
        together = contextual_agreement(seen.call, seen.queries, sampling.budgets)
        for i, (budget, found) in enumerate(zip(sampling.budgets, together, strict=True)):
            counted = seen.counted(budget)
            state["agreement"][rows, i, seen.row] = mean_over_queries(found, counted)
            chance = (budget / seen.visible.double()).unsqueeze(1)
            state["chance"][rows, i, seen.row] = mean_over_queries(chance, counted)[:, 0]
        return f"contextual agreement in {choose(seen.call)}"

    ran = sampled_pass(
        scope,
        prompts,
        tuple(rotary.frequencies),
        order or rotary.order,
        sampling,
        state,
        see,
        identity="agreement",
        implementation=implementation,
        batch_tokens=batch_tokens,
        progress=progress,
        checkpoint=checkpoint,
    )
    return statistics.dataset(
        info,
        [(AGREEMENT, state["agreement"]), (CHANCE, state["chance"])],
        {"budget": list(sampling.budgets)},
        {
            "implementation": ", ".join(sorted(ran)),
            "fingerprint": fingerprint(prompts),
            "queries": sampling.queries,
            "seed": sampling.seed,
        },
    )


def partial_logits(call: AttentionCall, queries: Tensor, order: Sequence[int]) -> Tensor:
    """Return what every chunk adds to q·k of a few queries; over the chunks it sums to q·k.

    Args:
        call: a layer's call; masks, scale and softcap are left out.
        queries: `[B, S]` query indices; few, because nothing is streamed here.
        order: of a head's dimensions, see `Rotary.order`.

    Returns:
        Tensor: `[B, H, S, D / 2, T]`.

    Example:
        >>> x = torch.randn(1, 2, 5, 8); call = AttentionCall(layer=0, q=x, k=x, v=x, scale=1.0)
        >>> parts = partial_logits(call, torch.tensor([[4]]), range(8))
        >>> torch.allclose(parts.sum(-2), x[:, :, 4:] @ x.mT, atol=1e-5)
        True
    """
    index = torch.tensor(list(order), device=call.q.device)
    at = queries.to(call.q.device)[:, None, :, None].expand(-1, call.q.shape[1], -1, call.q.shape[3])
    q = call.q.gather(2, at).index_select(-1, index).unflatten(-1, (2, -1))
    k = call.k.repeat_interleave(call.group_size, 1).index_select(-1, index).unflatten(-1, (2, -1))
    return torch.einsum("bhspc,bhtpc->bhsct", q, k)
