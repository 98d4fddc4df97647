"""Contextual agreement of RoPE frequency chunks: which chunks of a head pick the keys that the whole head picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec

import torch
from torch import Tensor

from ._validate import check_integers, check_range
from .contract import AttentionCall
from .errors import ContractError, ImplementationUnavailableError

IMPLEMENTATIONS = ("torch", "triton")
PAIRINGS = ("half", "adjacent")
TRITON_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
TRITON_HEAD_DIM = 256
HONOURED = {
    *("layer", "q", "k", "v", "scale", "key_valid", "query_valid", "causal", "window", "softcap", "sink_logits"),
    *("q_offset", "knockouts", "segments", "head_output"),
}
"""Fields of a call that are taken into account, or that cannot change which keys are the largest."""


def contextual_agreement(
    call: AttentionCall,
    queries: Tensor,
    k: int | Sequence[int],
    *,
    pairing: str = "half",
    implementation: str = "auto",
) -> Tensor:
    """Return the share of each sampled row's top K keys that each frequency chunk's partial logit finds alone.

    Chunk c of a head is one RoPE pair of dimensions, with partial logit s_j = Σ over the pair of q_d·k_{j,d}; the
    partial logits of a head sum to q·k. Agreement is |top K by q·k ∩ top K by s| / K over the visible keys, with
    K = min(k, visible keys); of equal keys the lowest index counts first. Softcap, scale and sink logits leave
    ranks alone and are not applied. From FASA (2602.03152).

    No tensor holds all chunks over all keys. `torch` takes the top K of a few chunks of a few rows at a time. `triton`
    finds every chunk's threshold by counting keys above guesses: every eight rows of a KV head read its K about ten
    times (96 at most), all of it about six times and then only where candidates are left. Rows that stand next to
    each other in `queries` share reads, so ascending queries are quickest.

    Args:
        call: the layer's inputs.
        queries: `[B, N]` query indices; -1 asks for nothing.
        k: keys a query; several give one result each, and share their work in `torch`.
        pairing: `half`, dimensions (c, c + D/2), the pairs that RoPE rotates in most models; or `adjacent`,
            (2c, 2c + 1), whose partial logits move under a common shift of positions if RoPE rotates halves.
        implementation: `auto`, `torch` (everything; float64 in float64) or `triton` (CUDA, or Triton's interpreter;
            bfloat16, float16 and float32, D up to 256). Products are added in float32, at torch's float32 matmul
            precision for the whole logits.

    Returns:
        Tensor: `[B, H, N, D / 2]` float32 in 0..1, or `[len(k), B, H, N, D / 2]` for several k; NaN where the query
        is -1 or not valid, sees no key, or has a visible logit that is not finite.

    Raises:
        ContractError: an argument does not fit the call, or the call has a field that changes ranks and is unknown.
        ImplementationUnavailableError: the name is unknown or that implementation does not cover the call; another
            is never taken in its place.

    Example:
        >>> import torch; q = torch.tensor([[[[1.0, 5.0, 0.0, 0.0]]]])
        >>> k = torch.tensor([[[[3.0, 0.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]])
        >>> call = AttentionCall(layer=0, q=q, k=k, v=k, scale=1.0)
        >>> contextual_agreement(call, torch.tensor([[0]]), k=2)  # the logits are 3, 12, 6
        tensor([[[[0.5000, 1.0000]]]])
    """
    ks = (k,) if isinstance(k, int) else tuple(k)
    _check(call, queries, ks, pairing)
    name = choose(call) if implementation == "auto" else implementation
    if name not in IMPLEMENTATIONS:
        raise ImplementationUnavailableError(
            f"contextual agreement implementation {name!r}", expected=f"auto or one of {', '.join(IMPLEMENTATIONS)}"
        )
    reason = _why_not_triton(call) if name == "triton" else None
    if reason is not None:
        raise ImplementationUnavailableError(
            f"contextual agreement implementation 'triton' does not cover this call: {reason}",
            fix="Ask for 'torch', which covers it, or 'auto'.",
        )
    b, h, _, d = call.q.shape
    if queries.numel() == 0:
        found = call.q.new_empty(len(ks), b, h, queries.shape[1], d // 2, dtype=torch.float32)
        return found[0] if isinstance(k, int) else found
    with torch.no_grad(), torch.autocast(call.q.device.type, enabled=False):
        if name == "triton":
            from . import _frequency_search

            found = torch.stack([_frequency_search.run(call, queries, one, pairing) for one in ks])
        else:
            from . import _frequency_torch

            found = _frequency_torch.run(call, queries, ks, pairing)
    return found[0] if isinstance(k, int) else found


def choose(call: AttentionCall) -> str:
    """Return the implementation that `auto` takes: triton on a CUDA device where it covers the call, else torch.

    Example:
        >>> import torch; x = torch.randn(1, 1, 3, 4)
        >>> choose(AttentionCall(layer=0, q=x, k=x, v=x, scale=0.5))
        'torch'
    """
    return "triton" if call.q.is_cuda and _why_not_triton(call) is None else "torch"


def _why_not_triton(call: AttentionCall) -> str | None:
    if call.q.dtype not in TRITON_DTYPES:
        return f"dtype {call.q.dtype}, where it has bfloat16, float16 and float32"
    if call.q.shape[-1] > TRITON_HEAD_DIM:
        return f"head dim {call.q.shape[-1]}, where it has at most {TRITON_HEAD_DIM}"
    if find_spec("triton") is None:
        return "triton is not installed"
    if call.q.is_cuda:
        return None
    from . import _frequency_triton

    return None if _frequency_triton.INTERPRETED else f"it is on {call.q.device}, not on a CUDA device"


def _check(call: AttentionCall, queries: Tensor, ks: tuple[int, ...], pairing: str) -> None:
    b, _, tq, d = call.q.shape
    if d % 2:
        _fail("head dim", d, "an even number, for pairs of dimensions")
    if pairing not in PAIRINGS:
        _fail("pairing", repr(pairing), f"one of {', '.join(PAIRINGS)}")
    if not ks or min(ks) < 1:
        _fail("k", min(ks, default="none"), "at least 1")
    for spec in fields(call):
        value = getattr(call, spec.name)
        if spec.name not in HONOURED and value is not spec.default:
            _fail(spec.name, "one", "none: it may change which keys are the largest")
    if queries.dim() != 2 or queries.shape[0] != b:
        _fail("queries", f"shape {tuple(queries.shape)}", f"[{b}, N]")
    check_integers(call, "contextual agreement, queries", queries)
    check_range("contextual agreement, queries", queries, tq)


def _fail(name: str, found: object, expected: object) -> None:
    raise ContractError(f"contextual agreement, {name}", found=found, expected=expected)
