"""Attention knockout: some keys become invisible to some queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from attnscope_kernels import AttentionCall, Knockout

from ..core.errors import TaskError
from ._base import Edit
from ._positions import at_positions, token_positions


@dataclass(frozen=True)
class KnockOut(Edit):
    """Remove (query, key) pairs before the softmax, so that rows renormalise (2304.14767).

    Positions are counted from each prompt's first token, so that padding on either side changes nothing. Blocking
    position 0 also removes the attention sink: results say so by recording the edit.

    Attributes:
        queries: query positions; None means all.
        keys: key positions.
        layers: layers in which it acts; None means all.
        heads: query heads in which it acts; None means all.

    Raises:
        TaskError: a position lies outside the prompt.

    Example:
        >>> KnockOut(keys=(0,)).queries is None
        True
    """

    name: ClassVar[str] = "knock_out"
    keys: tuple[int, ...]
    queries: tuple[int, ...] | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    def call(self, call: AttentionCall) -> AttentionCall:
        """Add the knockout to the call."""
        if self.layers is not None and call.layer not in self.layers:
            return call
        b, h, tq, _ = call.q.shape
        tk = call.k.shape[2]
        heads = _mask(self.heads, h, "head").to(call.q.device)
        positions = token_positions(call)
        keys = _at(positions, _mask(self.keys, tk, "key"), call).expand(b, tk)
        if self.queries is None:
            queries = torch.ones(b, tq, dtype=torch.bool, device=call.q.device)
        elif positions is None or not call.self_attention:
            at = tuple(q - call.offset for q in self.queries if q >= call.offset)
            queries = _mask(at, tq, "query").expand(b, tq).to(call.q.device)
        else:
            queries = _at(positions, _mask(self.queries, tk, "query"), call)[:, call.offset : call.offset + tq]
        knockout = Knockout(heads, queries, keys)
        return call.replace(knockouts=(*call.knockouts, knockout))


def _at(positions: torch.Tensor | None, table: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    return at_positions(positions, table[None, None].to(call.q.device))[:, 0]


def _mask(chosen: tuple[int, ...] | None, size: int, what: str) -> torch.Tensor:
    if chosen is None:
        return torch.ones(size, dtype=torch.bool)
    outside = [i for i in chosen if not 0 <= i < size]
    if outside:
        raise TaskError(f"knockout of {what}", found=outside, expected=f"0..{size - 1}")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask
