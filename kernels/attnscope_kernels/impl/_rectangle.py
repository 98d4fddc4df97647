"""A rectangle of the attention matrix, dense, from the normalisers of its rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..contract import AttentionCall
from ..errors import ContractError
from ._shapes import statistics_dtype
from ._visible import intervals


@torch.no_grad()
def weights_of(call: AttentionCall, lse: Tensor, first: int, last: int) -> Tensor:
    """Return A `[B, H, Tq, last - first]` of a call's queries and the keys first..last-1.

    Args:
        call: with the rectangle's queries alone.
        lse: `[B, H, Tq]`, NaN where a query does not count.
        first: first key.
        last: one past the last key.
    """
    if first >= last:
        raise ContractError("rectangle of keys", found=f"{first}..{last}", expected="at least one key")
    dtype = statistics_dtype(call)
    keys = slice(first, last)
    k = call.k[:, :, keys].to(dtype).repeat_interleave(call.group_size, dim=1)
    logits = (call.q.to(dtype) @ k.transpose(-1, -2)) * call.scale
    if call.logit_scale is not None:
        logits *= call.logit_scale.to(dtype)[:, None, None]
    if call.softcap is not None:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    if call.key_bias is not None:
        logits += call.key_bias[:, :, None, keys].to(dtype)
    seen = intervals(call)
    j = torch.arange(first, last, device=logits.device)
    hidden = (j < seen.low[:, None, :, None]) | (j >= seen.high[:, None, :, None])
    if call.key_valid is not None:
        hidden = hidden | ~call.key_valid[:, None, None, keys]
    for knockout in call.knockouts:
        pairs = knockout.queries[:, None, :, None] & knockout.keys[:, None, None, keys]
        hidden = hidden | (knockout.heads[:, None, None] & pairs)
    weights = (logits - lse.unsqueeze(-1).to(dtype)).exp()
    return weights.masked_fill(hidden, 0.0).masked_fill(lse.isnan().unsqueeze(-1), math.nan)
