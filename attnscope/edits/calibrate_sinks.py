"""Attention calibration: sinks give up part of their attention to the other keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Want, attend

from ..core.errors import TaskError
from ..core.ids import HeadId
from ._base import Attend, Edit, all_counted, finish_heads
from ._positions import hide
from ._sinks import SinkKeys, check_sinks, heads_with_sinks, prompts_of, sink_mask
from .stream_window import StreamWindow


@dataclass(frozen=True)
class CalibrateSinks(Edit):
    """Multiply attention on sinks by beta, and give what they lose to the other keys in proportion (ACT, 2406.15765).

    After the softmax A[:, S] becomes beta·A[:, S], and the mass that S loses goes to keys outside S in proportion to
    A; the first token receives too unless it is in S. So z' = beta·z + (1 − beta)·K·z₋, where z₋ is attention
    renormalised over the keys outside S and K the mass on all keys (1 without a sink logit, which keeps its own
    mass): one more attention call of the chosen heads, and no matrix. A query that sees only S keeps its z.

    What collectors see is attention before calibration. Positions are counted from each prompt's first token, so that
    padding, batching and a key/value cache change nothing. Scaling, ablation and patches of a head act on its
    calibrated output. Calibrating one head twice multiplies the betas where the keys are the same.

    Attributes:
        keys: S, as layer or head → positions; a tuple holds one such mapping for each prompt of the batch. Positions
            that a prompt does not reach are no error.
        heads: query heads to calibrate; None means all that `keys` names.
        beta: factor on the sinks' attention, 0..1; 1 changes nothing, and 0 gives all of it away.

    Raises:
        UnknownHeadError: no head is named, or the model has no such head.
        TaskError: no or negative positions, a head without keys, or beta out of range.

    Example:
        >>> CalibrateSinks({3: (12, 40)}, (HeadId(3, 1),)).beta
        0.4
    """

    name: ClassVar[str] = "calibrate_sinks"
    keys: SinkKeys | tuple[SinkKeys, ...]
    heads: tuple[HeadId, ...] | None = None
    beta: float = 0.4

    def __post_init__(self) -> None:
        check_sinks("calibration of sinks", self.heads, self.keys)
        if not 0 <= self.beta <= 1:
            raise TaskError("calibration of sinks", found=f"beta {self.beta}", expected="0..1")

    def check_after(self, earlier: Sequence[Edit]) -> None:
        """Refuse a streaming window on the same heads: what they give the other keys would be taken from all keys."""
        for edit in earlier:
            if isinstance(edit, StreamWindow) and self._shares_heads(edit):
                raise TaskError(
                    "calibration of sinks",
                    found="a streaming window on the same heads before it",
                    expected="other heads",
                    fix="Calibrate and stream in two runs, or choose disjoint heads.",
                )

    def _shares_heads(self, edit: StreamWindow) -> bool:
        if edit.heads is None:
            return True
        places: tuple[int | HeadId, ...] = self.heads or tuple(place for row in prompts_of(self.keys) for place in row)
        return any(head in places or head.layer in places for head in edit.heads)

    def output(self, call: AttentionCall, z: Tensor, attend: Attend = attend) -> Tensor:
        """Mix each chosen head's output with that of attention to the keys outside S."""
        chosen = heads_with_sinks(call, self.heads, self.keys) if self.beta < 1 else []
        if not chosen:
            return z
        part = call.select(chosen)
        keys_only = all_counted(part).replace(sink_logits=None, head_output=None)
        others = attend(hide(keys_only, sink_mask(call, chosen, self.keys)), Want(lse=True))
        assert others.output is not None
        assert others.lse is not None
        rest, mine = others.output, z[:, chosen]
        if part.sink_logits is not None:
            on_keys = attend(keys_only, Want(output=False, lse=True)).lse
            assert on_keys is not None
            mass = torch.sigmoid(on_keys - part.sink_logits.to(on_keys)[:, None])
            rest = (rest.to(mass) * mass.nan_to_num()[..., None]).to(z)
        mixed = torch.lerp(finish_heads(part, rest), mine, self.beta)
        edited = z.clone()
        edited[:, chosen] = torch.where(others.lse.isnan()[..., None], mine, mixed)
        return edited
