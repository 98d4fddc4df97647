"""Streaming attention: a head sees the first keys and the last ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Knockout, Want, attend

from ..core.errors import TaskError, UnknownHeadError
from ..core.ids import HeadId
from ._base import Attend, Edit, all_counted, finish_heads, heads_of
from ._positions import at_positions, hide, token_positions


@dataclass(frozen=True)
class StreamWindow(Edit):
    """Let some query heads see only the first keys of their prompt and the most recent ones (2309.17453).

    Exact and without a matrix: attention to the recent keys and attention to the first ones are computed apart and
    merged by their softmax denominators. The model's own window still holds, and a sink logit counts once. Tokens
    keep their original positions, whereas StreamingLLM numbers the keys in its cache anew, so that results agree with
    it only within the trained context. What collectors see is the whole attention.

    Of two edits that compute a head's attention anew, the later one stands. Scaling, ablation and patches of a head
    act on what this edit gives.

    Attributes:
        heads: query heads; None means all.
        sinks: first tokens of each prompt that stay visible (padding aside).
        recent: last positions that stay visible, the query's own included.

    Raises:
        UnknownHeadError: no head is named, or the model has no such head.
        TaskError: fewer than 0 sinks or 1 recent position.

    Example:
        >>> StreamWindow(recent=256).sinks
        4
    """

    name: ClassVar[str] = "stream_window"
    heads: tuple[HeadId, ...] | None = None
    sinks: int = 4
    recent: int = 1020

    def __post_init__(self) -> None:
        if self.heads is not None and not self.heads:
            raise UnknownHeadError("streaming window", found="no heads", expected="at least one, or None for all")
        if self.sinks < 0 or self.recent < 1:
            raise TaskError(
                "streaming window",
                found=f"{self.sinks} sinks and {self.recent} recent positions",
                expected="0 or more and 1 or more",
            )

    def anew(self, call: AttentionCall) -> list[int]:
        """Return the chosen heads of a layer, or none where the window hides nothing."""
        h = call.q.shape[1]
        chosen = list(range(h)) if self.heads is None else heads_of(self.heads, call.layer)
        if chosen and not 0 <= chosen[0] <= chosen[-1] < h:
            raise UnknownHeadError(f"heads {chosen} of layer {call.layer}", expected=f"query heads below {h}")
        return chosen if call.k.shape[2] > self.recent else []

    def output(self, call: AttentionCall, z: Tensor, attend: Attend = attend) -> Tensor:
        """Compute the chosen heads anew."""
        chosen = self.anew(call)
        if not chosen:
            return z
        part = call.select(chosen)
        keys_only = all_counted(part).replace(sink_logits=None, head_output=None)
        first = _first(call, self.sinks)
        window = self.recent if call.window is None else min(self.recent, call.window)
        near = hide(keys_only, first[:, None].expand(-1, len(chosen), -1)).replace(window=window)
        merged = _merge([_attend(near, attend), *_attend_first(keys_only, first, attend)], part.sink_logits)
        edited = z.clone()
        edited[:, chosen] = finish_heads(part, merged.to(z))
        return edited


def _first(call: AttentionCall, sinks: int) -> Tensor:
    """Return `[B or 1, Tk]` bool: the first keys of each prompt."""
    table = torch.arange(call.k.shape[2], device=call.k.device) < sinks
    return at_positions(token_positions(call), table[None, None])[:, 0]


def _attend_first(call: AttentionCall, first: Tensor, attend: Attend) -> list[tuple[Tensor, Tensor]]:
    """Attend to the first keys alone: the queries among them causally, all later ones at once to the cut-off keys."""
    tq, heads = call.q.shape[2], call.q.shape[1]
    some = first.any(0).nonzero()
    if len(some) == 0:
        return []
    hidden = ~first[:, None].expand(-1, heads, -1)
    end = int(some[-1]) + 1
    early = min(max(end - call.offset, 0), tq)
    if not call.causal or call.segments is not None or early == tq or end == tq - early:
        return [_attend(hide(call, hidden), attend)]
    pieces = []
    if early:
        cut = _cut(call, 0, early, call.offset + early, causal=True)
        pieces.append(_attend(hide(cut, hidden[..., : call.offset + early]), attend))
    pieces.append(_attend(hide(_cut(call, early, tq, end, causal=False), hidden[..., :end]), attend))
    return [(torch.cat([z for z, _ in pieces], 2), torch.cat([lse for _, lse in pieces], 2))]


def _cut(call: AttentionCall, low: int, high: int, keys: int, *, causal: bool) -> AttentionCall:
    """Return the call of the queries low..high-1 and the first `keys` keys."""
    part = call.select(queries=slice(low, high))
    return part.replace(
        causal=causal,
        k=part.k[:, :, :keys],
        v=part.v[:, :, :keys],
        key_valid=None if part.key_valid is None else part.key_valid[:, :keys],
        key_bias=None if part.key_bias is None else part.key_bias[:, :, :keys],
        knockouts=tuple(Knockout(x.heads, x.queries, x.keys[:, :keys]) for x in part.knockouts),
    )


def _attend(call: AttentionCall, attend: Attend) -> tuple[Tensor, Tensor]:
    result = attend(call, Want(lse=True))
    assert result.output is not None
    assert result.lse is not None
    return result.output, result.lse.nan_to_num(nan=-math.inf, neginf=-math.inf)


def _merge(parts: list[tuple[Tensor, Tensor]], sink_logits: Tensor | None) -> Tensor:
    """Return attention to the union of disjoint keys `[B, H, Tq, Dv]`, 0 where a query sees none of them."""
    total = torch.stack([lse for _, lse in parts]).logsumexp(0)
    if sink_logits is not None:
        total = torch.logaddexp(total, sink_logits.to(total)[:, None])
    shares = [(lse - total).exp().nan_to_num() for _, lse in parts]
    return torch.stack([z.to(total) * share[..., None] for (z, _), share in zip(parts, shares, strict=True)]).sum(0)
