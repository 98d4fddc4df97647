"""What a screen asks of `triton`: the same kernels on gathered queries, and chosen columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...contract import AttentionCall, Result, Want
from .._sample import Level
from . import _fused
from ._operands import Operands, aligned, operands_of
from .columns import columns
from .forward import forward
from .weights import weights


class Sampled:
    """See `_screen.Backend`."""

    name = "triton"

    def __init__(self, attend: Callable[[AttentionCall, Want], Result]) -> None:
        self.whole = attend
        self._made: tuple[AttentionCall, Operands] | None = None

    @torch.no_grad()
    def rows(self, call: AttentionCall, lse: Tensor, queries: Tensor, want: Want) -> dict[str, Tensor]:
        """Return the row statistics of `queries` `[S]`."""
        positions = (call.offset + queries).to(torch.int32)
        return dict(forward(self._at(call, queries), want, positions=positions).rows)

    @torch.no_grad()
    def received(self, call: AttentionCall, lse: Tensor, level: Level) -> Tensor:
        """Sum the rows of a level's queries with its weights."""
        operands = _keys(self._at(call, level.queries), level.keys)
        norm = _fused.norm_of(operands.call, lse[:, :, level.queries])
        padded = torch.nn.functional.pad(level.weights, (0, norm.shape[2] - len(level.queries)))
        found = weights(operands, norm, received=True, column_weights=padded).received
        assert found is not None
        return found

    @torch.no_grad()
    def columns(self, call: AttentionCall, lse: Tensor, keys: Tensor) -> Tensor:
        """Sum the columns of `keys` `[B, C]` over the queries that count."""
        return columns(self._operands(call), _fused.norm_of(call, lse), keys)

    def _operands(self, call: AttentionCall) -> Operands:
        if self._made is None or self._made[0] is not call:
            self._made = call, operands_of(call)
        return self._made[1]

    def _at(self, call: AttentionCall, queries: Tensor) -> Operands:
        """Return the operands of chosen queries: their positions live in the masks alone."""
        whole = self._operands(call)
        q = aligned(whole.q[:, :, queries])
        masks = whole.masks
        chosen = replace(
            masks,
            low=masks.low[:, queries].contiguous(),
            high=masks.high[:, queries].contiguous(),
            valid=masks.valid[:, queries].contiguous(),
            query_bits=None if masks.query_bits is None else masks.query_bits[:, :, queries].contiguous(),
            _made={},
        )
        part = call.replace(
            q=call.q[:, :, queries],
            q_offset=None,
            causal=False,
            key_valid=None,
            key_bias=None,
            query_valid=call.valid_queries[:, queries],
            knockouts=(),
            segments=None,
            window=None,
            head_output=None,
        )
        return replace(whole, call=part, q=q, masks=chosen)


def _keys(operands: Operands, keys: slice) -> Operands:
    """Return the operands of chosen queries and a range of keys."""
    call, masks, count = operands.call, operands.masks, keys.stop - keys.start
    k, v = call.k[:, :, keys], call.v[:, :, keys]
    chosen = replace(
        masks,
        low=(masks.low - keys.start).clamp_(0, count),
        high=(masks.high - keys.start).clamp_(0, count),
        key_bits=None if masks.key_bits is None else masks.key_bits[:, keys].contiguous(),
        bias=None if masks.bias is None else masks.bias[:, :, keys].contiguous(),
        _made={},
    )
    part = call.replace(k=k, v=v)
    return replace(operands, call=part, k=aligned(k), v=aligned(v), masks=chosen)
