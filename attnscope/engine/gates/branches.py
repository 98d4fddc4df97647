"""The kinds of attention that gates mix: all keys, sink and recent keys, chosen keys; all with gradients, none T×T."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attnscope_kernels import AttentionCall, attend
from attnscope_kernels.impl._sdpa import covers

from ...core.errors import UnsupportedModelError

BLOCK = 64
"""Fewest queries that attend at once."""


def full(call: AttentionCall) -> Tensor:
    """Attend to every visible key.

    Through the kernels where these have gradients, otherwise a block of queries at a time whose weights the backward
    pass computes again.

    Args:
        call: causal self-attention of unpadded prompts.

    Returns:
        z `[B, H, T, Dv]`, differentiable.

    Raises:
        UnsupportedModelError: any other attention.

    Example:
        >>> x = torch.randn(1, 2, 5, 8)
        >>> full(AttentionCall(layer=0, q=x, k=x, v=x, scale=0.3)).shape
        torch.Size([1, 2, 5, 8])
    """
    check(call)
    if covers(call):
        output = attend(call, implementation="tiled").output
        assert output is not None
        return output
    tokens = call.k.shape[2]
    pieces = []
    for start in range(0, tokens, 4 * BLOCK):
        stop = min(start + 4 * BLOCK, tokens)
        work = partial(_block, call, start, stop)
        pieces.append(checkpoint(work, call.q, call.k, call.v, use_reentrant=False))
    return torch.cat(pieces, 2)


def _block(call: AttentionCall, start: int, stop: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    queries, keys = torch.arange(start, stop, device=q.device), torch.arange(stop, device=q.device)
    seen = visible(call, queries, keys)
    return weighted(call, q[:, :, start:stop], k[:, :, :stop], v[:, :, :stop], seen)


def streaming(call: AttentionCall, sinks: int, recent: int) -> Tensor:
    """Attend to the first keys and the most recent ones, as the edit `stream_window` does.

    A block of queries takes the sink keys and its own band, so that memory grows with T·(sinks + 2·recent).

    Args:
        call: causal self-attention of unpadded prompts.
        sinks: first keys that stay visible.
        recent: last positions that stay visible, the query's own included; the model's own window still holds.

    Returns:
        z `[B, H, T, Dv]`, differentiable.

    Raises:
        UnsupportedModelError: any other attention.

    Example:
        >>> x = torch.randn(1, 2, 5, 8)
        >>> call = AttentionCall(layer=0, q=x, k=x, v=x, scale=0.3)
        >>> torch.allclose(streaming(call, 1, 5), full(call), atol=1e-6)
        True
    """
    check(call)
    tokens, device = call.k.shape[2], call.k.device
    if tokens <= recent:
        return full(call)
    size = max(BLOCK, recent)
    pieces = []
    for start in range(0, tokens, size):
        stop = min(start + size, tokens)
        low = max(0, start - recent + 1)
        first = min(sinks, low)
        queries = torch.arange(start, stop, device=device)
        keys = torch.cat([torch.arange(first, device=device), torch.arange(low, stop, device=device)])
        near = (queries[:, None] - keys < recent) | (keys < sinks)
        k, v = (torch.cat([x[:, :, :first], x[:, :, low:stop]], 2) for x in (call.k, call.v))
        pieces.append(weighted(call, call.q[:, :, start:stop], k, v, visible(call, queries, keys) & near))
    return torch.cat(pieces, 2)


def weighted(call: AttentionCall, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Attend from some queries to some keys of a call.

    Args:
        call: gives scale, softcap and sink logits.
        q: `[B, H, n, D]`.
        k: `[B, G, m, D]`.
        v: `[B, G, m, Dv]`.
        seen: `[n, m]` or `[B, H, n, m]` bool; every query sees a key.

    Returns:
        z `[B, H, n, Dv]` in v's dtype; the softmax is in float32, or in float64 where q is.
    """
    b, h, n, _ = q.shape
    found = logits(call, q, k).masked_fill(~seen, -math.inf)
    if call.sink_logits is not None:
        column = call.sink_logits.to(found)[None, :, None, None].expand(b, h, n, 1)
        found = torch.cat([found, column], -1)
    weights = found.softmax(-1)[..., : k.shape[2]].to(v.dtype)
    groups = k.shape[1]
    return (weights.view(b, groups, h // groups * n, -1) @ v).view(b, h, n, v.shape[-1])


def logits(call: AttentionCall, q: Tensor, k: Tensor) -> Tensor:
    """Return the logits of some queries and keys of a call, capped where it has a cap: `[B, H, n, m]`."""
    b, h, n, d = q.shape
    groups = k.shape[1]
    raw = (q.reshape(b, groups, h // groups * n, d) @ k.mT).view(b, h, n, -1)
    scaled = raw.to(torch.promote_types(raw.dtype, torch.float32)) * call.scale
    return scaled if call.softcap is None else call.softcap * torch.tanh(scaled / call.softcap)


def visible(call: AttentionCall, queries: Tensor, keys: Tensor) -> Tensor:
    """Return which keys each query may see by causality and the model's own window: `[n, m]` bool."""
    distance = queries[:, None] - keys
    seen = distance >= 0
    return seen if call.window is None else seen & (distance < call.window)


def check(call: AttentionCall) -> None:
    """Refuse what gates cannot mix.

    Raises:
        UnsupportedModelError: the call is not causal self-attention of unpadded prompts without edits.
    """
    edits = {"knockouts": call.knockouts or None} | {
        name: getattr(call, name) for name in ("segments", "key_bias", "logit_scale", "head_output")
    }
    found = [name for name, value in edits.items() if value is not None]
    found += [] if call.causal else ["no causality"]
    found += [] if call.offset == 0 and call.q.shape[2] == call.k.shape[2] else ["a cache"]
    found += ["padding"] if call.key_valid is not None and not bool(call.key_valid.all()) else []
    if found:
        raise UnsupportedModelError(
            f"attention of layer {call.layer} under gates",
            found=", ".join(found),
            expected="causal self-attention of one unpadded prompt",
        )
