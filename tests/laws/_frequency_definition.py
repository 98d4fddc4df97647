"""Contextual agreement by its definition, and calls on which every order of addition ranks keys alike."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnscope_kernels import AttentionCall
from attnscope_kernels.testing import random_call

HALF, ADJACENT = "half", "adjacent"


def device_of(implementation: str) -> str:
    return "cuda" if implementation == "triton" and torch.cuda.is_available() else "cpu"


def exact_call(implementation: str, *, levels: int = 64, step: float = 1 / 16, **shape: Any) -> AttentionCall:
    """A call whose logits are exact in float32: q and k are multiples of `step`, at most `levels` of them."""
    call = random_call(**{"batch": 1, "device": device_of(implementation), **shape})

    def on_grid(x: Tensor) -> Tensor:
        return (x / step).round().clamp(-levels, levels) * step

    return call.replace(q=on_grid(call.q), k=on_grid(call.k))


def some_queries(call: AttentionCall, count: int, seed: int = 0) -> Tensor:
    """The last query, none, and others."""
    random = torch.Generator().manual_seed(seed)
    b, tq = call.q.shape[0], call.q.shape[2]
    queries = torch.randint(0, tq, (b, count), generator=random)
    queries[:, 0] = tq - 1
    if count > 1:
        queries[:, 1] = -1
    return queries.to(call.q.device)


def sees(call: AttentionCall, b: int, h: int, i: int, j: int) -> bool:
    """Whether query i of head h sees key j: AttentionCall's rule, word by word."""
    position = call.offset + i
    visible = call.key_valid is None or bool(call.key_valid[b, j])
    visible = visible and not (call.causal and j > position)
    visible = visible and not (call.window is not None and abs(position - j) >= call.window)
    segments = getattr(call, "segments", None)
    visible = visible and (segments is None or bool(segments[b, j] == segments[b, position]))
    return visible and not any(bool(x.heads[h] & x.queries[b, i] & x.keys[b, j]) for x in call.knockouts)


def top(logits: Tensor, visible: list[int], count: int) -> set[int]:
    """The `count` visible keys of largest logit; of equals those of lowest index."""
    values = logits.tolist()
    return set(sorted(visible, key=lambda j: (-values[j], j))[:count])


def definition(call: AttentionCall, queries: Tensor, k: int, pairing: str = HALF) -> Tensor:
    """Contextual agreement by its definition, in float64, one row and chunk at a time."""
    b, h, _, d = call.q.shape
    q, keys = call.q.cpu().double(), call.k.cpu().double().repeat_interleave(call.group_size, dim=1)
    pair = (lambda c: [c, c + d // 2]) if pairing == HALF else (lambda c: [2 * c, 2 * c + 1])
    out = torch.full((b, h, queries.shape[1], d // 2), math.nan)
    for row, head, n in itertools.product(range(b), range(h), range(queries.shape[1])):
        i = int(queries[row, n])
        if i < 0 or not call.valid_queries[row, i]:
            continue
        visible = [j for j in range(keys.shape[2]) if sees(call, row, head, i, j)]
        count = min(k, len(visible))
        products = q[row, head, i] * keys[row, head]
        whole = top(products.sum(-1), visible, count)
        for c in range(d // 2 if count else 0):
            out[row, head, n, c] = len(whole & top(products[:, pair(c)].sum(-1), visible, count)) / count
    return out


def rotated(x: Tensor, positions: Tensor, theta: float = 100.0) -> Tensor:
    """Apply RoPE as most models do: dimension c turns with dimension c + D/2."""
    half = x.shape[-1] // 2
    frequencies = theta ** -(torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angles = (positions[:, None] * frequencies).repeat(1, 2)
    return x * angles.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angles.sin()


class Largest(TorchDispatchMode):
    """Note the largest tensor of two axes or more that any operation takes or gives."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        self.entries = max([self.entries, *(tensor.numel() for tensor in tensors if tensor.dim() > 1)])
        return result
