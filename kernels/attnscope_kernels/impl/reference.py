"""The definition: dense attention, every reduction taken from the whole matrix A. Differentiable, O(Tq·Tk) memory."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from ..contract import AttentionCall, Result, TopKeys, Want
from ._output import finish
from ._sample import Level
from ._screen import screened
from ._shapes import block_of, group_count, one_hot, statistics_dtype, value_norm


def attend(call: AttentionCall, want: Want) -> Result:
    """Compute everything from A `[B, H, Tq, Tk]`, in float64 where q is float64 and float32 otherwise."""
    if want.screen is not None:
        return screened(call, want, Dense())
    logits, seen = attention_logits(call)
    weights, sink, lse = attention_weights(call, logits, seen)
    counts = call.valid_queries[:, None] & seen.any(-1)  # [B, H, Tq]
    counted = weights * counts.unsqueeze(-1)
    distance = key_distances(call)
    v = call.v.to(weights.dtype).repeat_interleave(call.group_size, dim=1)

    def rows(statistic: Tensor) -> Tensor:
        keep = counts.reshape(counts.shape + (1,) * (statistic.dim() - 3))
        return torch.where(keep, statistic, math.nan)

    return Result(
        implementation="reference",
        output=finish(call, (weights @ v).to(call.q.dtype)) if want.output else None,
        lse=rows(lse) if want.lse else None,
        entropy=rows(entropy(weights, sink)) if want.entropy else None,
        max_prob=rows(weights.amax(-1)) if want.max_prob else None,
        mean_distance=rows((weights * distance).sum(-1)) if want.mean_distance else None,
        received=counted.sum(-2) if want.received else None,
        received_max=counted.amax(-2) if want.received_max else None,
        value_norm=value_norm(call) if want.value_norm else None,
        mass_at={name: rows(mass_at(weights, index)) for name, index in want.mass_at.items()},
        mass_in={name: rows(mass_in(weights, groups)) for name, groups in want.mass_in.items()},
        top_keys={name: top_keys(weights, logits, counts, top) for name, top in want.top_keys.items()},
        mass_by_distance=None
        if want.mass_by_distance is None
        else mass_by_distance(counted, distance, want.mass_by_distance),
        pooled_map=None if want.pooled_map is None else pooled_map(counted, counts, *want.pooled_map),
        pooled_max=None if want.pooled_max is None else pooled_max(counted, counts, *want.pooled_max),
    )


class Dense:
    """What a screen asks of an implementation, from the whole matrix (see `_screen.Backend`)."""

    name = "reference"

    def whole(self, call: AttentionCall, want: Want) -> Result:
        """Compute a want without a screen."""
        return attend(call, want)

    def rows(self, call: AttentionCall, lse: Tensor, queries: Tensor, want: Want) -> dict[str, Tensor]:
        """Return the row statistics of `queries` `[S]`."""
        every = attend(call, want)
        names = [name for name in ("entropy", "max_prob", "mean_distance") if getattr(want, name)]
        return {name: getattr(every, name)[:, :, queries] for name in names}

    def received(self, call: AttentionCall, lse: Tensor, level: Level) -> Tensor:
        """Sum the rows of a level's queries with its weights."""
        shares = self._counted(call)[:, :, level.queries, level.keys]
        return (shares * level.weights.to(shares)[:, None]).sum(-2)

    def columns(self, call: AttentionCall, lse: Tensor, keys: Tensor) -> Tensor:
        """Sum the columns of `keys` `[B, C]` over the queries that count."""
        received = self._counted(call).sum(-2)
        return received.gather(2, keys[:, None].expand(-1, received.shape[1], -1))

    def _counted(self, call: AttentionCall) -> Tensor:
        logits, seen = attention_logits(call)
        return attention_weights(call, logits, seen)[0] * (call.valid_queries[:, None] & seen.any(-1))[..., None]


def key_distances(call: AttentionCall) -> Tensor:
    """Return |position of query i − j| `[Tq, Tk]` in tokens."""
    i = call.offset + torch.arange(call.q.shape[2], device=call.q.device)
    return (i[:, None] - torch.arange(call.k.shape[2], device=call.q.device)).abs()


def visible(call: AttentionCall) -> Tensor:
    """Return `[B, H, Tq, Tk]` bool: the pairs that enter the softmax."""
    b, h, tq, _ = call.q.shape
    tk = call.k.shape[2]
    seen = torch.ones(b, h, tq, tk, dtype=torch.bool, device=call.q.device)
    if call.causal:
        i = call.offset + torch.arange(tq, device=call.q.device)
        seen = seen & (torch.arange(tk, device=call.q.device) <= i[:, None])
    if call.window is not None:
        seen = seen & (key_distances(call) < call.window)
    if call.key_valid is not None:
        seen = seen & call.key_valid[:, None, None, :]
    if call.segments is not None:
        own = call.segments[:, call.offset : call.offset + tq]
        seen = seen & (own[:, None, :, None] == call.segments[:, None, None, :])
    if call.key_bias is not None:
        seen = seen & (call.key_bias > -math.inf)[:, :, None, :]
    for knockout in call.knockouts:
        heads = knockout.heads[None, :, None, None]
        seen = seen & ~(heads & knockout.queries[:, None, :, None] & knockout.keys[:, None, None, :])
    return seen


def attention_logits(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Return the logits `[B, H, Tq, Tk]`, -inf where a pair is not visible, and what is visible."""
    dtype = statistics_dtype(call)
    k = call.k.to(dtype).repeat_interleave(call.group_size, dim=1)
    logits = call.scale * (call.q.to(dtype) @ k.transpose(-1, -2))
    if call.logit_scale is not None:
        logits = logits * call.logit_scale.to(dtype)[:, None, None]
    if call.softcap is not None:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    if call.key_bias is not None:
        logits = logits + call.key_bias.to(dtype)[:, :, None]
    seen = visible(call)
    return logits.masked_fill(~seen, -math.inf), seen


def attention_weights(call: AttentionCall, logits: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return A `[B, H, Tq, Tk]` (0 where nothing is seen), the sink logit's probability and the lse `[B, H, Tq]`."""
    b, h, tq, _ = logits.shape
    finite = torch.where(seen.any(-1, keepdim=True), logits, 0.0)  # rows that see nothing would be NaN
    sink_logits = logits.new_full((h,), -math.inf) if call.sink_logits is None else call.sink_logits.to(logits.dtype)
    outcomes = torch.cat([finite, sink_logits[None, :, None, None].expand(b, h, tq, 1)], dim=-1)
    probabilities = torch.softmax(outcomes, dim=-1)
    weights = torch.where(seen, probabilities[..., :-1], 0.0)
    return weights, probabilities[..., -1], torch.logsumexp(outcomes, dim=-1)


def entropy(weights: Tensor, sink: Tensor) -> Tensor:
    """Return −Σ p·ln p `[B, H, Tq]` over the keys and the sink logit."""
    return torch.special.entr(weights).sum(-1) + torch.special.entr(sink)


def mass_at(weights: Tensor, index: Tensor) -> Tensor:
    """Return Σ_r A[i, index[i, r]] `[B, H, Tq]`, NaN where every index is -1."""
    index = index.unsqueeze(-1) if index.dim() == 2 else index
    chosen = index.long().clamp(min=0)[:, None].expand(-1, weights.shape[1], -1, -1)
    present = (index >= 0)[:, None]
    return torch.where(present.any(-1), (weights.gather(-1, chosen) * present).sum(-1), math.nan)


def mass_in(weights: Tensor, groups: Tensor) -> Tensor:
    """Return the mass on each group of keys `[B, H, Tq, n]`."""
    return weights @ one_hot(groups, group_count(groups), weights.dtype)[:, None]


def top_keys(weights: Tensor, logits: Tensor, counts: Tensor, top: TopKeys) -> tuple[Tensor, Tensor]:
    """Return the k largest weights and their keys, `[B, H, N, k]` each; NaN and -1 where there is none."""
    b, h, _, tk = weights.shape
    queries = top.queries.long().clamp(min=0)[:, None].expand(b, h, -1)
    rows = queries[..., None].expand(b, h, queries.shape[-1], tk)
    best, keys = logits.gather(2, rows).topk(min(top.k, tk), dim=-1)
    best_weights = weights.gather(2, rows).gather(-1, keys)
    asked = (top.queries >= 0)[:, None] & counts.gather(2, queries)
    present = (best > -math.inf) & asked[..., None]
    missing = (0, top.k - keys.shape[-1])
    pad = torch.nn.functional.pad
    return (
        pad(torch.where(present, best_weights, math.nan), missing, value=math.nan),
        pad(torch.where(present, keys, -1), missing, value=-1),
    )


def mass_by_distance(counted: Tensor, distance: Tensor, edges: tuple[int, ...]) -> Tensor:
    """Return the mass of each distance bin summed over the counted queries, `[B, H, len(edges) - 1]`."""
    bins = [(counted * ((distance >= low) & (distance < high))).sum((-1, -2)) for low, high in pairwise(edges)]
    return torch.stack(bins, dim=-1)


def pooled_map(counted: Tensor, counts: Tensor, rows: int, columns: int) -> Tensor:
    """Return the mean over each row block's counted queries of the mass in each column block."""
    of_row = one_hot(block_of(counted.shape[-2], rows, counted.device), rows, counted.dtype).T
    of_column = one_hot(block_of(counted.shape[-1], columns, counted.device), columns, counted.dtype)
    queries = of_row @ counts.to(counted.dtype).unsqueeze(-1)  # [B, H, rows, 1]
    return (of_row @ counted @ of_column) / torch.where(queries > 0, queries, math.nan)


def pooled_max(counted: Tensor, counts: Tensor, rows: int, columns: int) -> Tensor:
    """Return the largest weight of each row block's counted queries in each column block."""
    of_row = block_of(counted.shape[-2], rows, counted.device)
    of_column = block_of(counted.shape[-1], columns, counted.device)
    b, h, tq, _ = counted.shape
    across = counted.new_zeros(b, h, tq, columns)
    across.scatter_reduce_(-1, of_column.expand(counted.shape), counted, "amax")
    largest = counted.new_zeros(b, h, rows, columns)
    largest.scatter_reduce_(-2, of_row[:, None].expand(across.shape), across, "amax")
    some = one_hot(of_row, rows, counted.dtype).T @ counts.to(counted.dtype).unsqueeze(-1) > 0
    return torch.where(some, largest, math.nan)
