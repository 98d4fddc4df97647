"""Contextual agreement in torch: the partial logits of a few chunks at a time, for a few rows at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._frequency_rows import halves, merge_rows, parts, sampled_rows, top_rows, top_set
from .contract import AttentionCall

CHUNKS = 4
"""Chunks at once; never all of a head's, so that nothing has both its chunks and its keys."""
ROW_ENTRY = 24
"""Bytes a key of one row of one chunk: a value, masks, and the running count where values tie."""


def run(call: AttentionCall, queries: Tensor, k: int, pairing: str) -> Tensor:
    """Return contextual agreement `[B, H, N, C]` float32."""
    rows = sampled_rows(call, queries)
    b, g, s, d = rows.q.shape
    chunks, length = d // 2, call.k.shape[2]
    together = min(CHUNKS, max(1, chunks - 1))
    out = torch.full((b, g, s, chunks), math.nan, dtype=torch.float32, device=call.q.device)
    for part in parts(rows, ROW_ENTRY * (1 + together) * length):
        whole = top_rows(rows, part, k)
        seen, kept = whole.seen.unsqueeze(-2), whole.kept.unsqueeze(-1)
        q1, q2 = halves(rows.q[part], pairing)
        k1, k2 = halves(call.k.detach()[part[:2]], pairing)
        for first in range(0, chunks, together):
            some = slice(first, first + together)
            logits = _times(q1[..., some], k1[..., some])
            logits.add_(_times(q2[..., some], k2[..., some])).masked_fill_(~seen, -torch.inf)
            both = top_set(logits, seen, kept.expand(logits.shape[:-1]), k).logical_and_(whole.top.unsqueeze(-2))
            share = both.sum(-1) / kept.to(torch.float32)
            out[*part, some] = torch.where(kept > 0, share, math.nan)
    return merge_rows(out, call, queries)


def _times(q: Tensor, k: Tensor) -> Tensor:
    """Return q `[b, g, s, c]` times k `[b, g, Tk, c]`, `[b, g, s, c, Tk]`."""
    return q.unsqueeze(-1) * k.to(q.dtype).transpose(-1, -2).unsqueeze(2)
