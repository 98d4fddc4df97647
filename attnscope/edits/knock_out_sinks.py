"""Knockout of sinks: chosen heads no longer see some keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.ids import HeadId
from ._base import Edit
from ._positions import hide
from ._sinks import SinkKeys, check_sinks, heads_with_sinks, sink_mask


@dataclass(frozen=True)
class KnockOutSinks(Edit):
    """Hide key positions from some query heads before the softmax, so that rows renormalise (2304.14767).

    A query that sees nothing but these keys is left with z = 0. A sink logit stays, and takes the more. Positions
    are counted from each prompt's first token, so that padding, batching and a key/value cache change nothing.

    Attributes:
        keys: layer or head → positions; a tuple holds one such mapping for each prompt of the batch. Positions that
            a prompt does not reach are no error.
        heads: query heads in which it acts; None means all that `keys` names.

    Raises:
        UnknownHeadError: no head is named, or the model has no such head.
        TaskError: no or negative positions, or a head without keys.

    Example:
        >>> KnockOutSinks({3: (0,)}, (HeadId(3, 1),)).heads
        (L3H1,)
    """

    name: ClassVar[str] = "knock_out_sinks"
    keys: SinkKeys | tuple[SinkKeys, ...]
    heads: tuple[HeadId, ...] | None = None

    def __post_init__(self) -> None:
        check_sinks("knockout of sinks", self.heads, self.keys)

    def call(self, call: AttentionCall) -> AttentionCall:
        """Hide the keys from the chosen heads."""
        chosen = heads_with_sinks(call, self.heads, self.keys)
        if not chosen:
            return call
        some = sink_mask(call, chosen, self.keys)
        hidden: Tensor = some.new_zeros(call.q.shape[0], call.q.shape[1], some.shape[2])
        hidden[:, chosen] = some
        return hide(call, hidden)
