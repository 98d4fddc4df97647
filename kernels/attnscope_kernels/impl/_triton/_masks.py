"""What a call hides, as the kernels read it: an interval a query, knockout bits, a bias a head and key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ...contract import AttentionCall
from .._visible import intervals, unpadded
from ._bounds import bounds, first_rows

HIDDEN = -1e30
LOG2E = 1.4426950408889634
HOLE = 30
"""The bit of keys that no query sees; knockouts have the bits below."""


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of one call.

    Attributes:
        low: `[B, Tq]` int32, first visible key.
        high: `[B, Tq]` int32, one past the last; `high <= low` where a query sees nothing.
        valid: `[B, Tq]` int8, whether a query counts.
        query_bits: `[B, H, Tq]` int32 or None: bit n where knockout n has this head and query.
        key_bits: `[B, Tk]` int32 or None: bit n where knockout n has this key; a pair that shares a bit is hidden.
        bias: `[B or 1, H, Tk]` float32 in log2 units, or None.
    """

    low: Tensor
    high: Tensor
    valid: Tensor
    query_bits: Tensor | None
    key_bits: Tensor | None
    bias: Tensor | None
    _made: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    def bounds(self, tk: int, queries: int, keys: int) -> Tensor:
        """Return `_bounds.bounds`, computed once."""
        return self._once((tk, queries, keys), lambda: bounds(self.low, self.high, tk, queries, keys))

    def first_rows(self, tk: int, queries: int, keys: int, slots: int) -> Tensor:
        """Return `first_rows` of these bounds, computed once."""
        return self._once((tk, queries, keys, slots), lambda: first_rows(self.bounds(tk, queries, keys), slots))

    def _once(self, key: tuple[int, ...], make: Callable[[], Tensor]) -> Tensor:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @cached_property
    def head_bits(self) -> Tensor:
        """`[B, H]` int32: bits that any query of a head has."""
        assert self.query_bits is not None
        return _any_bit(self.query_bits)

    def tile_bits(self, size: int) -> Tensor:
        """`[B, tiles]` int32: bits that any key of each `size` keys has."""
        assert self.key_bits is not None
        return _any_bit(_tiles(self.key_bits, size))

    def tile_bias(self, size: int) -> Tensor:
        """`[B or 1, H, tiles]` int32: 1 where any key of each `size` keys has a bias."""
        assert self.bias is not None
        return (_tiles(self.bias, size) != 0).any(-1).to(torch.int32)


def masks_of(call: AttentionCall) -> Masks:
    """Return the masks of a call with at most HOLE knockouts."""
    low, high, valid, holes, made = _positions(call)
    query_bits = key_bits = bias = None
    if call.knockouts or holes:
        b, h, tq, _ = call.q.shape
        query_bits = torch.zeros(b, h, tq, dtype=torch.int32, device=call.q.device)
        key_bits = torch.zeros(b, call.k.shape[2], dtype=torch.int32, device=call.q.device)
        for bit, knockout in enumerate(call.knockouts):
            query_bits |= (knockout.heads[:, None] & knockout.queries[:, None]).int() << bit
            key_bits |= knockout.keys.int() << bit
        if holes:
            assert call.key_valid is not None
            query_bits |= 1 << HOLE
            key_bits |= (~call.key_valid).int() << HOLE
    if call.key_bias is not None:
        bias = (call.key_bias.detach().float() * LOG2E).clamp(min=HIDDEN).contiguous()
    return Masks(low, high, valid, query_bits, key_bits, bias, made)


def _positions(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor, bool, dict[tuple[int, ...], Tensor]]:
    """Return low, high, valid, whether there are holes, and a place for what is made of them; kept without padding."""
    if call.key_valid is None and call.query_valid is None and call.segments is None:
        b, _, tq, _ = call.q.shape
        return _unpadded(b, tq, call.k.shape[2], call.offset, call.causal, call.window, call.q.device)
    seen = intervals(call)
    return seen.low, seen.high, call.valid_queries.to(torch.int8).contiguous(), seen.holes, {}


@lru_cache(maxsize=16)
def _unpadded(
    b: int, tq: int, tk: int, offset: int, causal: bool, window: int | None, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, bool, dict[tuple[int, ...], Tensor]]:
    low, high = unpadded(b, tq, tk, offset, causal, window, device)
    return low.contiguous(), high.contiguous(), torch.ones(b, tq, dtype=torch.int8, device=device), False, {}


def _tiles(values: Tensor, size: int) -> Tensor:
    """`[..., n]` → `[..., tiles, size]`, padded with zeros."""
    short = -values.shape[-1] % size
    return torch.nn.functional.pad(values, (0, short)).unflatten(-1, (-1, size))


def _any_bit(bits: Tensor) -> Tensor:
    """OR along the last axis, halved until one is left."""
    while (size := bits.shape[-1]) > 1:
        half = (size + 1) // 2
        bits = torch.nn.functional.pad(bits, (0, size % 2)) if size % 2 else bits
        bits = bits[..., :half] | bits[..., half:]
    return bits[..., 0]
