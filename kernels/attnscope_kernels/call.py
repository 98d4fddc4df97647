"""AttentionCall: one attention layer's inputs, the same for every backend.

Shape letters: B batch, Tq queries, Tk keys, H query heads, G KV heads, D head dim of q and k, Dv head dim of v.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import ContractError
from .head_output import HeadOutput


@dataclass(frozen=True, eq=False)
class Knockout:
    """Query-key pairs that are removed before the softmax, so that rows renormalise.

    A pair (query i, key j) of head h is removed where `heads[h] and queries[b, i] and keys[b, j]`.

    Attributes:
        heads: `[H]` bool.
        queries: `[B, Tq]` bool.
        keys: `[B, Tk]` bool.
    """

    heads: Tensor
    queries: Tensor
    keys: Tensor


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One attention layer's inputs, the same for every backend.

    Query i stands at key position `q_offset + i`. Key j is visible to it where `key_valid[b, j]`, and (causal)
    `j <= q_offset + i`, and (window) `|q_offset + i - j| < window`, and both lie in one segment, and no knockout
    removes the pair.

    Attributes:
        layer: 0-based layer index in the model.
        q: `[B, H, Tq, D]` after RoPE and QK-norm.
        k: `[B, G, Tk, D]`, not repeated over the H/G query heads of a group.
        v: `[B, G, Tk, Dv]`.
        scale: factor on q·k.
        key_valid: `[B, Tk]` bool, False on padding; None means all valid.
        query_valid: `[B, Tq]` bool; None derives it: in self-attention (the queries are the keys at `q_offset`
            onwards) a query is valid where its own key is.
        causal: whether later keys are hidden.
        window: number of positions on each visible side, itself included; None means no window.
        softcap: logits become `softcap * tanh(logits / softcap)`.
        sink_logits: `[H]` one extra logit a head that takes probability and has no key (gpt-oss).
        q_offset: key position of query 0; None means `Tk - Tq` (lower-right alignment).
        knockouts: pairs removed before the softmax.
        segments: `[B, Tk]` integers that never fall, for several sequences packed in one row (self-attention only).
        key_bias: `[B or 1, H, Tk]` added to the logits of every query, after the softcap; -inf hides a key.
        logit_scale: `[H]` a further factor, 0 or more, of each head's q·k before the softcap; 0 attends uniformly.
        head_output: what becomes of each head's output.

    Raises:
        ContractError: shapes, dtypes, devices or ranges do not fit together.

    Example:
        >>> q = torch.randn(1, 4, 5, 8); k = v = torch.randn(1, 2, 5, 8)
        >>> AttentionCall(layer=0, q=q, k=k, v=v, scale=8 ** -0.5).group_size
        2
    """

    layer: int
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    key_valid: Tensor | None = None
    query_valid: Tensor | None = None
    causal: bool = True
    window: int | None = None
    softcap: float | None = None
    sink_logits: Tensor | None = None
    q_offset: int | None = None
    knockouts: tuple[Knockout, ...] = ()
    segments: Tensor | None = None
    key_bias: Tensor | None = None
    logit_scale: Tensor | None = None
    head_output: HeadOutput | None = None

    def __post_init__(self) -> None:
        for name in ("q", "k", "v"):
            value = getattr(self, name)
            if value.dim() != 4:
                _fail(self, name, f"shape {tuple(value.shape)}", "four dimensions [B, heads, T, D]")
            if not value.is_floating_point():
                _fail(self, name, value.dtype, "a floating-point tensor")
            if value.device != self.q.device or value.dtype != self.q.dtype:
                _fail(self, name, f"{value.dtype} on {value.device}", f"{self.q.dtype} on {self.q.device}")
        b, h, tq, d = self.q.shape
        bk, g, tk, dk = self.k.shape
        if (bk, dk) != (b, d):
            _fail(self, "k", tuple(self.k.shape), f"[{b}, G, Tk, {d}]")
        if tuple(self.v.shape[:3]) != (b, g, tk):
            _fail(self, "v", tuple(self.v.shape), f"[{b}, {g}, {tk}, Dv]")
        if g == 0 or h % g:
            _fail(self, "heads", f"{h} query heads over {g} KV heads", "a whole number a group")
        if tq == 0 or tk == 0:
            _fail(self, "length", f"{tq} queries and {tk} keys", "at least one of each")
        if self.q_offset is None:
            object.__setattr__(self, "q_offset", tk - tq)
        if self.causal and not 0 <= self.offset <= tk - tq:
            _fail(self, "q_offset", self.q_offset, f"0..{tk - tq}")
        if self.window is not None and self.window < 1:
            _fail(self, "window", self.window, "at least 1, or None")
        if not self.scale > 0:
            _fail(self, "scale", self.scale, "a positive number")
        if self.softcap is not None and self.softcap <= 0:
            _fail(self, "softcap", self.softcap, "a positive number, or None")
        _check_mask(self, "key_valid", self.key_valid, (b, tk))
        _check_mask(self, "query_valid", self.query_valid, (b, tq))
        if self.sink_logits is not None and tuple(self.sink_logits.shape) != (h,):
            _fail(self, "sink_logits", tuple(self.sink_logits.shape), f"[{h}]")
        for number, knockout in enumerate(self.knockouts):
            _check_mask(self, f"knockouts[{number}].heads", knockout.heads, (h,))
            _check_mask(self, f"knockouts[{number}].queries", knockout.queries, (b, tq))
            _check_mask(self, f"knockouts[{number}].keys", knockout.keys, (b, tk))
        if self.segments is not None:
            if not self.self_attention:
                _fail(self, "segments", f"{tq} queries and {tk} keys", "self-attention")
            if tuple(self.segments.shape) != (b, tk) or self.segments.dtype not in (torch.int64, torch.int32):
                _fail(self, "segments", f"{self.segments.dtype} {tuple(self.segments.shape)}", f"integers ({b}, {tk})")
        if self.key_bias is not None and tuple(self.key_bias.shape) not in ((b, h, tk), (1, h, tk)):
            _fail(self, "key_bias", tuple(self.key_bias.shape), f"[{b} or 1, {h}, {tk}]")
        if self.logit_scale is not None and tuple(self.logit_scale.shape) != (h,):
            _fail(self, "logit_scale", tuple(self.logit_scale.shape), f"[{h}]")
        if self.head_output is not None:
            _check_output(self, self.head_output)

    @property
    def offset(self) -> int:
        """Key position of query 0."""
        return self.q_offset if self.q_offset is not None else self.k.shape[2] - self.q.shape[2]

    @property
    def group_size(self) -> int:
        """Query heads per KV head."""
        return self.q.shape[1] // self.k.shape[1]

    @property
    def self_attention(self) -> bool:
        """Whether the queries are the keys at `q_offset` onwards."""
        return self.causal or self.q.shape[2] == self.k.shape[2]

    @property
    def valid_queries(self) -> Tensor:
        """`[B, Tq]` bool: the queries that count in statistics."""
        if self.query_valid is not None:
            return self.query_valid
        b, _, tq, _ = self.q.shape
        if self.key_valid is None or not self.self_attention:
            return torch.ones(b, tq, dtype=torch.bool, device=self.q.device)
        return self.key_valid[:, self.offset : self.offset + tq]

    @property
    def padded_queries(self) -> Tensor | None:
        """`[B, Tq]` bool: the queries that stand on padding themselves; None where that cannot be, or none is known."""
        if self.key_valid is None or not self.self_attention:
            return None
        return ~self.key_valid[:, self.offset : self.offset + self.q.shape[2]]

    def replace(self, **changes: object) -> AttentionCall:
        """Return a copy with some fields changed (checked again)."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def select(self, heads: Sequence[int] | None = None, queries: slice | None = None) -> AttentionCall:
        """Return the call of some query heads and a range of queries; keys stay whole, K/V are views where they can.

        Example:
            >>> q = torch.randn(1, 4, 9, 8); k = v = torch.randn(1, 2, 9, 8)
            >>> part = AttentionCall(layer=0, q=q, k=k, v=v, scale=1.0).select([3], slice(6, 9))
            >>> part.q.shape, part.k.shape, part.offset
            (torch.Size([1, 1, 3, 8]), torch.Size([1, 1, 9, 8]), 6)
        """
        from ._select import select_heads, select_queries

        call = self
        if queries is not None:
            call = select_queries(call, *queries.indices(call.q.shape[2])[:2])
        return call if heads is None else select_heads(call, list(heads))


def _fail(call: AttentionCall, name: str, found: object, expected: object) -> None:
    raise ContractError(f"attention call of layer {call.layer}, {name}", found=found, expected=expected)


def _check_mask(call: AttentionCall, name: str, mask: Tensor | None, shape: tuple[int, ...]) -> None:
    if mask is None:
        return
    if tuple(mask.shape) != shape or mask.dtype != torch.bool:
        _fail(call, name, f"{mask.dtype} {tuple(mask.shape)}", f"torch.bool {shape}")


def _check_output(call: AttentionCall, output: HeadOutput) -> None:
    b, h, tq, _ = call.q.shape
    if tuple(output.scale.shape) != (h,):
        _fail(call, "head_output.scale", tuple(output.scale.shape), f"[{h}]")
    if any(not 0 <= head < h for head in output.patched):
        _fail(call, "head_output.patched", output.patched, f"query heads 0..{h - 1}")
    if (output.patches is None) != (not output.patched):
        _fail(call, "head_output.patches", "patched heads or patches alone", "both or neither")
    if output.patches is not None:
        shape, p, dv = tuple(output.patches.shape), len(output.patched), call.v.shape[3]
        if len(shape) != 4 or shape[0] not in (1, b) or shape[1] != p or shape[2] not in (1, tq) or shape[3] != dv:
            _fail(call, "head_output.patches", shape, f"[{b} or 1, {p}, {tq} or 1, {dv}]")
    if output.kept is not None:
        shape, p = tuple(output.kept.shape), len(output.patched)
        if len(shape) != 3 or shape[0] not in (1, b) or shape[1] != p or shape[2] not in (1, tq) or not p:
            _fail(call, "head_output.kept", shape, f"[{b} or 1, {p}, {tq} or 1], and patches")
