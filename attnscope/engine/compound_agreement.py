"""Compound agreement: how many of a head's top keys a cheap choice of keys holds (FASA, 2602.03152)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..core import statistics
from ..core.errors import TaskError
from ..core.names import Variable
from .batches import PromptSet, fingerprint
from .frequency_pass import Progress, SampledCall, Sampling, mean_over_queries, sampled_pass
from .key_choices import OBSERVED, QueryRows

if TYPE_CHECKING:
    from ..models._base import Scope
    from ..models._rotary import Rotary

COMPOUND = Variable(
    "compound_agreement",
    ("prompt", "choice", "budget", "layer", "head"),
    "1",
    "top keys that the method picks, mean over sampled queries",
    "2602.03152",
)
BASELINES = ("random", "recent", "stream", "snapkv")
ROW_BYTES = 1 << 28
"""Bytes of everything with a key axis that is alive at once."""


def methods(sizes: tuple[int, ...]) -> tuple[str, ...]:
    """Return the methods' names in order; `random chunks` are as many as the most dominant ones.

    Example:
        >>> methods((8, 16))
        ('random', 'recent', 'stream', 'snapkv', 'random chunks 16', 'chunks 8', 'chunks 16')
    """
    return (*BASELINES, f"random chunks {max(sizes)}", *(f"chunks {size}" for size in sizes))


def compound_agreement(
    scope: Scope,
    prompts: PromptSet,
    ranking: np.ndarray,
    sizes: tuple[int, ...],
    rotary: Rotary,
    sampling: Sampling,
    *,
    order: tuple[int, ...] | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> xr.Dataset:
    """Return the share of each query's top K keys that each method picks as its K keys.

    `chunks N` picks by the partial logits of a head's N dominant chunks; choose these on other prompts. Baselines:
    `random` is exact, K over the visible keys; `recent` the last K keys; `stream` the first four and the last K − 4
    (2309.17453); `snapkv` the keys to which the 32 queries before paid most attention, averaged over five keys, with
    the last 32 (or K / 2) always kept (2404.14469); `random chunks` as many chunks as the most dominant ones, drawn
    for every prompt and head.

    Args:
        scope: a loaded causal model.
        prompts: with a column `input_ids`; none that the chunks were chosen on.
        ranking: `[L, H, C]` chunks of every head, dominant first; -1 in layers without RoPE.
        sizes: numbers of dominant chunks, ascending.
        rotary: see `models._rotary.find_rotary`.
        sampling: budgets and queries.
        order: another pairing of dimensions than the model's own, see `Rotary.order`.
        implementation: kernel implementation of the forward.
        batch_tokens: padded tokens a batch at most.
        progress: takes tokens done and tokens in all.
        checkpoint: a file to go on from.

    Returns:
        xarray.Dataset: `compound_agreement` `[P, methods, budgets, L, H]` 0..1; NaN where no query sees 2 K keys.

    Raises:
        TaskError: sizes that the head does not have; empty or too long prompts.
        DeviceError: the device ran out of memory.
    """
    info, names = scope.info, methods(sizes)
    if not sizes or min(sizes) < 1 or max(sizes) > info.head_dim // 2:
        raise TaskError("numbers of dominant chunks", found=sizes, expected=f"1 to {info.head_dim // 2}")
    shape = (len(prompts), len(names), len(sampling.budgets), len(info.attention_layers), info.n_heads)
    state = {"compound": np.full(shape, np.nan)}

    def see(seen: SampledCall) -> None:
        for b, prompt in enumerate(seen.prompts):
            some = seen.queries[b] >= 0
            if not bool(some.any()):
                continue
            for g in range(info.n_kv_heads):
                chosen = ranking[seen.row, g * info.group_size : (g + 1) * info.group_size]
                drawn = _drawn(chosen.shape, (sampling.seed, prompt, seen.row, g))
                found, visible = _group(seen, b, g, chosen, drawn[:, : max(sizes)], sizes, sampling.budgets)
                heads = slice(g * info.group_size, (g + 1) * info.group_size)
                for i, budget in enumerate(sampling.budgets):
                    counted = (visible >= 2 * budget).unsqueeze(0)
                    mean = mean_over_queries(found[:, i].unsqueeze(0).flatten(1, 2), counted)
                    state["compound"][prompt, :, i, seen.row, heads] = mean.reshape(len(names), -1)

    sampled_pass(
        scope,
        prompts,
        tuple(rotary.frequencies),
        order or rotary.order,
        sampling,
        state,
        see,
        identity=["compound", list(sizes), ranking.tolist()],
        implementation=implementation,
        batch_tokens=batch_tokens,
        progress=progress,
        checkpoint=checkpoint,
    )
    return statistics.dataset(
        info,
        [(COMPOUND, state["compound"])],
        {"budget": list(sampling.budgets), "choice": list(names)},
        {"fingerprint": fingerprint(prompts), "queries": sampling.queries, "seed": sampling.seed},
    )


def _drawn(shape: tuple[int, ...], seed: tuple[int, ...]) -> np.ndarray:
    """Return `[r, C]` random orders of the chunks."""
    heads, chunks = shape
    random = np.random.default_rng(seed)
    return np.stack([random.permutation(chunks) for _ in range(heads)])


def _group(
    seen: SampledCall,
    b: int,
    g: int,
    ranking: np.ndarray,
    drawn: np.ndarray,
    sizes: tuple[int, ...],
    budgets: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """Return agreement `[methods, budgets, r, S]` and the keys that each query sees `[S]`."""
    some = seen.queries[b] >= 0
    at, visible = seen.queries[b][some], seen.visible[b][some]
    keys, device = seen.call.k.shape[2], at.device
    step = max(1, ROW_BYTES // (8 * keys * seen.call.group_size * OBSERVED))
    ranks, draws = torch.from_numpy(ranking).to(device), torch.from_numpy(drawn).to(device)
    found = []
    for first in range(0, len(at), step):
        part = slice(first, first + step)
        rows = QueryRows(seen.call, b, g, at[part], visible[part])
        found.append(torch.stack(list(_methods(rows, ranks, draws, sizes, budgets))))
    return torch.cat(found, -1), visible


def _methods(
    rows: QueryRows, ranks: Tensor, draws: Tensor, sizes: tuple[int, ...], budgets: tuple[int, ...]
) -> Iterator[Tensor]:
    """Yield agreement `[budgets, r, S]` of every method, in the order of `methods`."""
    logits = rows.logits()
    most = min(max(budgets), logits.shape[-1])
    place = torch.full(logits.shape, most, dtype=torch.int32, device=logits.device)
    top = logits.topk(most, dim=-1).indices
    place.scatter_(-1, top, torch.arange(most, dtype=torch.int32, device=logits.device).expand(top.shape))

    def shares(keys: Tensor) -> Tensor:
        held = place.gather(-1, keys.expand(*place.shape[:2], -1))
        return torch.stack([(held[..., :budget] < budget).double().sum(-1) / budget for budget in budgets])

    yield torch.stack([(budget / rows.visible).double().expand(place.shape[:2]) for budget in budgets])
    yield shares(rows.recent(most))
    yield shares(rows.stream(most))
    votes = rows.votes()
    snapkv = [shares(rows.by_votes(votes, min(budget, most)))[i] for i, budget in enumerate(budgets)]
    yield torch.stack(snapkv)
    for chosen in (draws, *(ranks[:, :size] for size in sizes)):
        yield shares(rows.by_chunks(chosen, most))
