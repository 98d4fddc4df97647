"""Contextual agreement in torch: the partial logits of a few chunks at a time, for a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._frequency_rows import TopRows, halves, merge_rows, parts, sampled_rows, top_rows, top_set
from .contract import AttentionCall

CHUNKS = 4
"""Chunks at once; never all of a head's, so that nothing has both its chunks and its keys."""
ROW_ENTRY = 24
"""Bytes a key of one row of one chunk: a value, masks, and the running count where values tie."""


def run(call: AttentionCall, queries: Tensor, ks: Sequence[int], pairing: str) -> Tensor:
    """Return contextual agreement `[len(ks), B, H, N, C]` float32; one top K of every chunk serves all `ks`."""
    rows = sampled_rows(call, queries)
    b, g, s, d = rows.q.shape
    chunks, length = d // 2, call.k.shape[2]
    together = min(CHUNKS, max(1, chunks - 1))
    out = torch.full((len(ks), b, g, s, chunks), math.nan, dtype=torch.float32, device=call.q.device)
    for part in parts(rows, (ROW_ENTRY * (1 + together) + 2 * len(ks)) * length):
        wholes = top_rows(rows, part, ks)
        hidden = ~wholes[0].seen.unsqueeze(-2)
        outside = torch.stack([~whole.top for whole in wholes]).sum(0, dtype=torch.uint8).unsqueeze(-2)
        q1, q2 = halves(rows.q[part], pairing)
        k1, k2 = halves(call.k.detach()[part[:2]], pairing)
        for first in range(0, chunks, together):
            some = slice(first, first + together)
            logits = _times(q1[..., some], k1[..., some])
            logits.add_(_times(q2[..., some], k2[..., some])).masked_fill_(hidden, -torch.inf)
            best, keys = logits.topk(min(max(ks) + 1, logits.shape[-1]), dim=-1)
            levels = outside.expand(logits.shape).gather(-1, keys)
            for i, (whole, k) in enumerate(zip(wholes, ks, strict=True)):
                kept = whole.kept.unsqueeze(-1)
                smaller = sum(other < k for other in ks)
                held = slice(0, min(k + 1, best.shape[-1]))
                share = _common(logits, best[..., held], levels[..., held] <= smaller, whole, k) / kept.to(
                    torch.float32
                )
                out[i, *part, some] = torch.where(kept > 0, share, math.nan)
    return torch.stack([merge_rows(one, call, queries) for one in out])


def _times(q: Tensor, k: Tensor) -> Tensor:
    """Return q `[b, g, s, c]` times k `[b, g, Tk, c]`, `[b, g, s, c, Tk]`."""
    return q.unsqueeze(-1) * k.to(q.dtype).transpose(-1, -2).unsqueeze(2)


def _common(logits: Tensor, best: Tensor, member: Tensor, whole: TopRows, k: int) -> Tensor:
    """Return how many keys `[b, g, s, c]` the top sets of partial `logits` share with those of the whole rows.

    `topk` gave `best`, largest first, and takes any of equal values: where they straddle the K-th place, the set is
    made by the rule instead. `member` says which of the best keys are in the whole row's set.
    """
    kept = whole.kept.unsqueeze(-1).expand(logits.shape[:-1])
    place = torch.arange(best.shape[-1], device=logits.device)
    common = (member & (place < kept.unsqueeze(-1))).sum(-1)
    straddle = (place[1:] == kept.unsqueeze(-1)) & (best[..., 1:] == best[..., :-1])
    tied = straddle.any(-1) & (kept > 0)
    if bool(tied.any()):
        seen = whole.seen.unsqueeze(-2).expand(logits.shape)[tied]
        members = whole.top.unsqueeze(-2).expand(logits.shape)[tied]
        common[tied] = (top_set(logits[tied], seen, kept[tied], k) & members).sum(-1)
    return common
