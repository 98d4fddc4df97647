"""Attention knockout: some keys become invisible to some queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from attnscope_kernels import AttentionCall, Knockout

from ..core.errors import TaskError
from ._base import Edit


@dataclass(frozen=True)
class KnockOut(Edit):
    """Remove (query, key) pairs before the softmax, so that rows renormalise (2304.14767).

    Blocking position 0 also removes the attention sink: results say so by recording the edit.

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
        keys = _mask(self.keys, tk, "key").expand(b, tk)
        at = None if self.queries is None else tuple(q - call.offset for q in self.queries if q >= call.offset)
        queries = _mask(at, tq, "query").expand(b, tq)
        knockout = Knockout(*(mask.to(call.q.device) for mask in (_mask(self.heads, h, "head"), queries, keys)))
        return call.replace(knockouts=(*call.knockouts, knockout))


def _mask(chosen: tuple[int, ...] | None, size: int, what: str) -> torch.Tensor:
    if chosen is None:
        return torch.ones(size, dtype=torch.bool)
    outside = [i for i in chosen if not 0 <= i < size]
    if outside:
        raise TaskError(f"knockout of {what}", found=outside, expected=f"0..{size - 1}")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask
