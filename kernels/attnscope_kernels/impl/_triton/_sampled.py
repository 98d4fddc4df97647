"""What a screen asks of `triton`: the same kernels on gathered queries, and chosen columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...contract import AttentionCall, Result, Want
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
    def received(self, call: AttentionCall, lse: Tensor, queries: Tensor, weights_: Tensor) -> Tensor:
        """Sum the rows of `queries` `[S]` with their weights `[S]`."""
        operands = self._at(call, queries)
        norm = _fused.norm_of(operands.call, lse[:, :, queries])
        padded = torch.nn.functional.pad(weights_.float(), (0, norm.shape[2] - len(queries)))
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
            q_offset=0,
            query_valid=call.valid_queries[:, queries],
            knockouts=(),
            segments=None,
            window=None,
            head_output=None,
        )
        return replace(whole, call=part, q=q, masks=chosen)
