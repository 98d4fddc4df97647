"""Which keys each query sees by position, padding and segment: one interval a query, the same in every head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..contract import AttentionCall


@dataclass(frozen=True, eq=False)
class Intervals:
    """Query i sees the keys low[b, i] <= j < high[b, i], but for invalid keys inside and what knockouts hide.

    Attributes:
        low: `[B, Tq]` int32; never falls along the queries.
        high: `[B, Tq]` int32; likewise, but for queries that see nothing: `high <= low` there.
        holes: whether some key inside an interval may be invalid.
    """

    low: Tensor
    high: Tensor
    holes: bool


def intervals(call: AttentionCall) -> Intervals:
    """Return the intervals of a call; one synchronisation with the device where there is padding."""
    b, _, tq, _ = call.q.shape
    tk = call.k.shape[2]
    low, high = unpadded(b, tq, tk, call.offset, call.causal, call.window, call.q.device)
    if call.segments is not None:
        own = call.segments[:, call.offset : call.offset + tq].contiguous()
        every = call.segments.contiguous()
        low = torch.maximum(low, torch.searchsorted(every, own, out_int32=True))
        high = torch.minimum(high, torch.searchsorted(every, own, right=True, out_int32=True))
    holes = False
    if call.key_valid is not None:
        valid = call.key_valid
        some = valid.any(1, keepdim=True)
        first = valid.int().argmax(1, keepdim=True).to(torch.int32)
        last = (tk - valid.flip(1).int().argmax(1, keepdim=True)).to(torch.int32)
        last = torch.where(some, last, first)
        holes = bool(((last - first).squeeze(1) != valid.sum(1)).any())
        low, high = torch.maximum(low, first), torch.minimum(high, last)
        padded = call.padded_queries
        if padded is not None:
            high = torch.where(padded, low, high)
    return Intervals(low.contiguous(), high.contiguous(), holes)


def unpadded(
    b: int, tq: int, tk: int, offset: int, causal: bool, window: int | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return low and high `[B, Tq]` by position alone (views: one row for all prompts).

    Example:
        >>> [x.tolist() for x in unpadded(1, 3, 3, 0, True, 2, torch.device("cpu"))]
        [[[0, 0, 1]], [[1, 2, 3]]]
    """
    position = torch.arange(offset, offset + tq, device=device, dtype=torch.int32)
    low = torch.zeros_like(position) if window is None else (position - window + 1).clamp_(min=0)
    high = position + 1 if causal else torch.full_like(position, tk)
    if window is not None and not causal:
        high = (position + window).clamp_(max=tk)
    return low.expand(b, tq), high.expand(b, tq)


def queries_that_see(call: AttentionCall) -> Tensor:
    """Return how many valid queries see each key `[B, Tk]` int64, knockouts aside; 0 for keys that are not valid.

    Example:
        >>> q = torch.zeros(1, 1, 3, 4)
        >>> queries_that_see(AttentionCall(layer=0, q=q, k=q, v=q, scale=1.0)).tolist()
        [[3, 2, 1]]
    """
    seen = intervals(call)
    b, tk = call.k.shape[0], call.k.shape[2]
    counts = (call.valid_queries & (seen.high > seen.low)).long()
    steps = torch.zeros(b, tk + 1, dtype=torch.int64, device=call.q.device)
    steps.scatter_add_(1, seen.low.long().clamp(max=tk), counts)
    steps.scatter_add_(1, seen.high.long().clamp(max=tk), -counts)
    total = steps.cumsum(1)[:, :tk]
    return total if call.key_valid is None else total * call.key_valid
