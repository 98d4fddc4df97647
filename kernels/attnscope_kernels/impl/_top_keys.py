"""The k largest weights of chosen queries: their rows alone are computed, a few at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..contract import AttentionCall, TopKeys
from ._logits import HIDDEN, Operands
from ._plan import ELEMENTS

ROWS = 64


def top_keys(operands: Operands, top: TopKeys) -> tuple[Tensor, Tensor]:
    """Return weights and keys, `[B, H, N, k]` each; NaN and -1 where there is none."""
    call = operands.call
    b, h = call.q.shape[:2]
    count, tk = top.queries.shape[1], call.k.shape[2]
    weights = torch.full((b, h, count, top.k), math.nan, dtype=operands.dtype, device=call.q.device)
    keys = torch.full((b, h, count, top.k), -1, dtype=torch.int64, device=call.q.device)
    k = min(top.k, tk)
    rows = max(1, min(ROWS, ELEMENTS.get(call.q.device.type, 1 << 20) // (b * h * tk)))
    for first in range(0, count, rows):
        chosen = top.queries[:, first : first + rows].long()
        index = chosen.clamp(min=0)
        logits = logits_of(operands, index)
        best, best_keys = logits.topk(k, dim=-1)
        present = best > HIDDEN / 2
        present &= ((chosen >= 0) & call.valid_queries.gather(1, index))[:, None, :, None]
        if call.sink_logits is not None:
            sink = call.sink_logits.detach().to(logits.dtype)[None, :, None, None]
            logits = torch.cat([logits, sink.expand(b, h, index.shape[1], 1)], dim=-1)
        shares = (best - torch.logsumexp(logits, dim=-1, keepdim=True)).exp()
        weights[:, :, first : first + rows, :k] = torch.where(present, shares, math.nan)
        keys[:, :, first : first + rows, :k] = torch.where(present, best_keys, -1)
    return weights, keys


def logits_of(operands: Operands, index: Tensor) -> Tensor:
    """Return the masked logits `[B, H, rows, Tk]` of the queries at `index` `[B, rows]`."""
    call = operands.call
    b, h, _, d = call.q.shape
    q = call.q.detach().gather(2, index[:, None, :, None].expand(b, h, -1, d)).to(operands.dtype) * call.scale
    g, tk = call.k.shape[1], call.k.shape[2]
    logits = (q.reshape(b, g, -1, d) @ operands.k.transpose(-1, -2)).view(b, h, -1, tk)
    if operands.factor is not None:
        logits.mul_(operands.factor[:, None, None])
    if call.softcap is not None:
        logits = logits.div_(call.softcap).tanh_().mul_(call.softcap)
    if operands.bias is not None:
        logits.add_(operands.bias[:, :, None])
    logits.masked_fill_(_hidden(call, index).unsqueeze(1), HIDDEN)
    for knockout in call.knockouts:
        pairs = knockout.queries.gather(1, index)[:, :, None] & knockout.keys[:, None, :]
        logits.masked_fill_(knockout.heads[:, None, None] & pairs.unsqueeze(1), HIDDEN)
    return logits


def _hidden(call: AttentionCall, index: Tensor) -> Tensor:
    """Return `[B, rows, Tk]` bool: the pairs that position or padding hides."""
    i = (call.offset + index).unsqueeze(-1)
    j = torch.arange(call.k.shape[2], device=index.device)
    hidden = (j > i) if call.causal else torch.zeros_like(i, dtype=torch.bool).expand(-1, -1, len(j))
    if call.window is not None:
        hidden = hidden | ((i - j).abs() >= call.window)
    if call.segments is not None:
        hidden = hidden | (call.segments.gather(1, call.offset + index)[:, :, None] != call.segments[:, None, :])
    if call.key_valid is not None:
        hidden = hidden | ~call.key_valid[:, None, :]
    return hidden
