"""z alone through `scaled_dot_product_attention`, for calls that its fused kernels cover exactly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..contract import AttentionCall


def covers(call: AttentionCall) -> bool:
    """Whether a fused kernel gives z of this call: no mask but causality, aligned; never the T×T fallback."""
    tq, tk = call.q.shape[2], call.k.shape[2]
    d, device = call.q.shape[-1], call.q.device.type
    extras = (call.softcap, call.sink_logits, call.segments, call.key_bias, call.logit_scale)
    plain = all(extra is None for extra in extras) and not call.knockouts
    aligned = not call.causal or tq == 1 or call.offset == 0
    full = call.window is None or call.window >= call.offset + max(tq, tk)
    if not (plain and aligned and full and call.v.shape[-1] == d):
        return False
    if device == "cuda":
        if call.q.dtype not in (torch.float16, torch.bfloat16) or d % 8 or d > 128:
            return False
    elif device != "cpu":
        return False
    return call.key_valid is None or bool(call.key_valid.all())


def output(call: AttentionCall) -> Tensor:
    """Return z `[B, H, Tq, Dv]`; gradients flow through it."""
    q, k, v, causal = arguments(call)
    return functional.scaled_dot_product_attention(
        q, k, v, scale=call.scale, is_causal=causal, enable_gqa=call.group_size > 1
    )


def arguments(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Return q, k and v as a fused kernel takes them, and whether it has to hide later keys."""
    tq = call.q.shape[2]
    seen = call.offset + tq if call.causal else call.k.shape[2]
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (call.q, call.k[:, :, :seen], call.v[:, :, :seen]))
    return q, k, v, call.causal and tq > 1
