"""Attention knockout: some keys become invisible to some queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Knockout

from ..core.errors import TaskError
from ._base import Edit
from ._positions import at_positions, queries_at, token_positions
from ._tokens import Positions, check_positions, chosen


@dataclass(frozen=True)
class KnockOut(Edit):
    """Remove (query, key) pairs before the softmax, so that rows renormalise (2304.14767).

    Positions are counted from each prompt's first token, so that padding on either side changes nothing. Blocking
    position 0 also removes the attention sink: results say so by recording the edit.

    Attributes:
        queries: query positions, or prompt → query positions; None means all.
        keys: key positions, or prompt → key positions (a prompt without any keeps all its keys).
        layers: layers in which it acts; None means all.
        heads: query heads in which it acts; None means all.

    Raises:
        TaskError: a position below 0; a key beyond those seen so far (queries may be still to come); or positions of
            single prompts, and the prompts are not known.

    Example:
        >>> KnockOut(keys=(0,)).queries is None
        True
    """

    name: ClassVar[str] = "knock_out"
    keys: tuple[int, ...] | Mapping[int, tuple[int, ...]] = field(hash=False)
    queries: Positions = field(default=None, hash=False)
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    _prompts: tuple[int, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positions("queries of a knockout", self.queries)
        check_positions("keys of a knockout", self.keys)

    def call(self, call: AttentionCall) -> AttentionCall:
        """Add the knockout to the call."""
        if self.layers is not None and call.layer not in self.layers:
            return call
        b, h, tq, _ = call.q.shape
        tk = call.k.shape[2]
        heads = _mask(self.heads, h, "head").to(call.q.device)
        positions = token_positions(call)
        keys = self._keys(positions, call)
        if isinstance(self.queries, Mapping):
            at = queries_at("knockout", call, self.queries, self._prompts)
            assert at is not None
            queries = at
        elif self.queries is None:
            queries = torch.ones(b, tq, dtype=torch.bool, device=call.q.device)
        elif positions is None or not call.self_attention:
            own = tuple(q - call.offset for q in self.queries if call.offset <= q < call.offset + tq)
            queries = _mask(own, tq, "query").expand(b, tq).to(call.q.device)
        else:
            own = tuple(q for q in self.queries if q < tk)
            queries = _at(positions, _mask(own, tk, "query"), call)[:, call.offset : call.offset + tq]
        knockout = Knockout(heads, queries, keys)
        return call.replace(knockouts=(*call.knockouts, knockout))

    def _keys(self, positions: Tensor | None, call: AttentionCall) -> Tensor:
        b, tk = call.k.shape[0], call.k.shape[2]
        if not isinstance(self.keys, Mapping):
            return _at(positions, _mask(self.keys, tk, "key"), call).expand(b, tk)
        every = torch.arange(tk, device=call.q.device).expand(b, tk) if positions is None else positions
        found = chosen("knockout", self.keys, every, self._prompts)
        assert found is not None
        return found


def _at(positions: Tensor | None, table: Tensor, call: AttentionCall) -> Tensor:
    return at_positions(positions, table[None, None].to(call.q.device))[:, 0]


def _mask(chosen: tuple[int, ...] | None, size: int, what: str) -> Tensor:
    if chosen is None:
        return torch.ones(size, dtype=torch.bool)
    outside = [i for i in chosen if not 0 <= i < size]
    if outside:
        raise TaskError(f"knockout of {what}", found=outside, expected=f"0..{size - 1}")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask
