"""The contract between models and kernels: AttentionCall in, Want asked, Result out.

Shape letters: B batch, Tq queries, Tk keys, H query heads, G KV heads, D head dim of q and k, Dv head dim of v.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from .errors import ContractError


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
    `j <= q_offset + i`, and (window) `|q_offset + i - j| < window`, and no knockout removes the pair.

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

    def replace(self, **changes: object) -> AttentionCall:
        """Return a copy with some fields changed (checked again)."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class TopKeys:
    """The k largest attention weights of chosen queries.

    Attributes:
        queries: `[B, N]` query indices; -1 asks for nothing.
        k: keys a query.
    """

    queries: Tensor
    k: int


@dataclass(frozen=True, eq=False)
class Want:
    """The closed set of reductions of the attention matrix A `[Tq, Tk]` of every head.

    A[i, j] is the attention weight; a sink logit takes probability from the keys, so rows may sum below 1.

    Attributes:
        output: z = A·V, `[B, H, Tq, Dv]`, of every query, valid or not; 0 where a query sees no key.
        lse: natural log of the softmax denominator (sink logit included), `[B, H, Tq]`.
        entropy: of each row in nats, the sink logit being one more outcome, `[B, H, Tq]`.
        max_prob: largest weight of each row, `[B, H, Tq]`.
        mean_distance: Σ_j A[i, j]·|position of i − j| in tokens, `[B, H, Tq]`.
        received: Σ over valid queries of A[i, j], `[B, H, Tk]`.
        received_max: max over valid queries of A[i, j], `[B, H, Tk]`.
        value_norm: ‖v_j‖₂, `[B, G, Tk]`.
        mass_at: name → key indices `[B, Tq]` or `[B, Tq, R]` (summed over R; -1 = no key) → `[B, H, Tq]`.
        mass_in: name → group of each key `[B, Tk]` (0..n-1; -1 = none) → `[B, H, Tq, n]`, n being the largest group
            number present plus one.
        top_keys: name → TopKeys → weights and keys, `[B, H, N, k]` each, largest weight first; k may exceed Tk.
        mass_by_distance: bin edges in tokens, increasing; bin e holds edges[e] <= distance < edges[e+1]; summed
            over valid queries, `[B, H, len(edges) - 1]`.
        pooled_map: (rows, columns): mean over valid queries of each row block of the mass in each column block,
            `[B, H, rows, columns]`; block r covers queries r·Tq//rows .. (r+1)·Tq//rows (likewise keys).

    Row statistics of a query that is not valid, or that sees no key, are NaN (missing, never 0), and so are
    `mass_at` where every index is -1, `top_keys` weights of absent keys (their key is -1), and `pooled_map` rows
    without a valid query. A valid query that sees no key adds nothing to any sum or mean. A `mass_at` index at an
    invisible key counts 0.
    """

    output: bool = True
    lse: bool = False
    entropy: bool = False
    max_prob: bool = False
    mean_distance: bool = False
    received: bool = False
    received_max: bool = False
    value_norm: bool = False
    mass_at: Mapping[str, Tensor] = field(default_factory=dict)
    mass_in: Mapping[str, Tensor] = field(default_factory=dict)
    top_keys: Mapping[str, TopKeys] = field(default_factory=dict)
    mass_by_distance: tuple[int, ...] | None = None
    pooled_map: tuple[int, int] | None = None

    def __or__(self, other: Want) -> Want:
        """Return the union of two wants, so that N collectors cost one set of launches.

        Raises:
            ContractError: both name a different `mass_by_distance` or `pooled_map`, or the same key twice.
        """
        merged: dict[str, object] = {}
        for spec in fields(Want):
            mine, theirs = getattr(self, spec.name), getattr(other, spec.name)
            if isinstance(mine, bool):
                merged[spec.name] = mine or theirs
            elif isinstance(mine, Mapping):
                shared = [name for name in mine if name in theirs and mine[name] is not theirs[name]]
                if shared:
                    raise ContractError(f"want {spec.name}", found=f"{shared} asked twice", expected="distinct names")
                merged[spec.name] = {**mine, **theirs}
            else:
                if mine is not None and theirs is not None and mine != theirs:
                    raise ContractError(f"want {spec.name}", found=f"{mine} and {theirs}", expected="one value")
                merged[spec.name] = mine if mine is not None else theirs
        return Want(**merged)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Result:
    """What a Want asked for; fields that were not asked for are None or empty.

    Statistics are float32 (float64 where q is float64); `output` has q's dtype.
    """

    implementation: str
    output: Tensor | None = None
    lse: Tensor | None = None
    entropy: Tensor | None = None
    max_prob: Tensor | None = None
    mean_distance: Tensor | None = None
    received: Tensor | None = None
    received_max: Tensor | None = None
    value_norm: Tensor | None = None
    mass_at: Mapping[str, Tensor] = field(default_factory=dict)
    mass_in: Mapping[str, Tensor] = field(default_factory=dict)
    top_keys: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    mass_by_distance: Tensor | None = None
    pooled_map: Tensor | None = None


Tap = Callable[[AttentionCall], Tensor]
"""The one hook: takes an AttentionCall and returns z `[B, H, Tq, Dv]`, before the output projection."""


def _fail(call: AttentionCall, name: str, found: object, expected: object) -> None:
    raise ContractError(f"attention call of layer {call.layer}, {name}", found=found, expected=expected)


def _check_mask(call: AttentionCall, name: str, mask: Tensor | None, shape: tuple[int, ...]) -> None:
    if mask is None:
        return
    if tuple(mask.shape) != shape or mask.dtype != torch.bool:
        _fail(call, name, f"{mask.dtype} {tuple(mask.shape)}", f"torch.bool {shape}")
