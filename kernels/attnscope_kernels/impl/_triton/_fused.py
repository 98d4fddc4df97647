"""z together with lse from the libraries' own fused forward (cuDNN, FlashAttention), where they cover the call."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention, can_use_flash_attention

from ...contract import AttentionCall
from .. import _sdpa
from ._masks import HIDDEN, LOG2E
from .forward import ROUND


def choose(call: AttentionCall) -> str | None:
    """Return which library's forward gives z and lse of a call: `cudnn`, `flash`, or None."""
    if not call.q.is_cuda or not _sdpa.covers(call):
        return None
    q, k, v, causal = _sdpa.arguments(call)
    parameters = SDPAParams(q, k, v, None, 0.0, causal, call.group_size > 1)
    if can_use_cudnn_attention(parameters):
        return "cudnn"
    return "flash" if can_use_flash_attention(parameters) else None


def run(call: AttentionCall, library: str) -> tuple[Tensor, Tensor]:
    """Return z `[B, H, Tq, Dv]` and lse `[B, H, Tq]` in nats."""
    q, k, v, causal = _sdpa.arguments(call)
    if library == "cudnn":
        operator = torch.ops.aten._scaled_dot_product_cudnn_attention
        z, lse, *_ = operator(q, k, v, None, True, 0.0, causal, False, scale=call.scale)
    else:
        operator = torch.ops.aten._scaled_dot_product_flash_attention
        z, lse, *_ = operator(q, k, v, 0.0, causal, False, scale=call.scale)
    return z, lse.reshape(call.q.shape[:3])


def norm_of(call: AttentionCall, lse: Tensor) -> Tensor:
    """Return `norm` as the forward kernel gives it (see `forward.Forward`), from lse `[B, H, Tq]` in nats."""
    b, h, tq = lse.shape
    norm = torch.full((b, h, -(-tq // ROUND) * ROUND), HIDDEN, dtype=torch.float32, device=lse.device)
    inner = norm[:, :, :tq]
    torch.mul(lse, -LOG2E, out=inner)
    inner.nan_to_num_(nan=HIDDEN)
    if call.query_valid is not None or call.key_valid is not None:
        inner.masked_fill_(~call.valid_queries[:, None], HIDDEN)
    return norm
