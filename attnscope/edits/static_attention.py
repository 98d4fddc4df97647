"""Static attention: a head looks by distance alone, whatever the text says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, attend

from ..core.errors import TaskError, UnknownHeadError
from ..core.ids import HeadId
from ._base import Attend, Edit, finish_heads, heads_of
from ._static import attend_by_distance, farthest


@dataclass(frozen=True)
class StaticAttention(Edit):
    """Replace the pattern of some query heads by their mean positional pattern, renormalised over the visible keys.

    Each key weighs what keys at its distance did on a reference set (`engine.reference` measures it), so the head goes
    on reading values but no longer asks what they are of (static-pattern ablation, Deconstructing Attention). Distances
    share weights in the bins of `core.batch.DISTANCE_GRID`: one each below 64. A head that rests on the first token,
    which stands at no fixed distance, loses that. No matrix is formed: bins are differences of running sums.

    Of two edits that compute a head's attention anew, the later one stands. Scaling, ablation and patches of a head
    act on what this edit gives. Hidden keys stay hidden. What collectors see is the attention that the head had.

    Attributes:
        heads: query heads.
        weights: layer → `[H, bins]` of a key in each bin of distances.
        edges: `bins + 1` edges of the bins, tokens.
        sinks: layer → `[H]` weight that goes to no key (sink logits); a layer without has none.

    Raises:
        UnknownHeadError: no head is named, or weights are missing for a layer.
        TaskError: bins and weights do not fit; in use, distances beyond the last bin, attention that is not causal, or
            knockouts of single queries in these heads.

    Example:
        >>> StaticAttention((HeadId(0, 1),), {0: torch.ones(4, 2)}, (0, 1, 2)).edges
        (0, 1, 2)
    """

    name: ClassVar[str] = "static_attention"
    heads: tuple[HeadId, ...]
    weights: Mapping[int, Tensor] = field(hash=False)
    edges: tuple[int, ...]
    sinks: Mapping[int, Tensor] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.heads:
            raise UnknownHeadError("static attention", found="no heads", expected="at least one")
        for head in self.heads:
            if head.layer not in self.weights or head.head >= len(self.weights[head.layer]):
                raise UnknownHeadError(f"static attention of {head}", found="no weights", expected="[H, bins]")
            bins = self.weights[head.layer].shape[1]
            if bins != len(self.edges) - 1 or list(self.edges) != sorted({0, *self.edges}):
                raise TaskError(
                    f"static attention of layer {head.layer}",
                    found=f"{bins} weights a head and {len(self.edges)} edges",
                    expected="a weight a bin, and edges that increase from 0",
                )

    def anew(self, call: AttentionCall) -> list[int]:
        """Return the chosen heads of a layer."""
        return heads_of(self.heads, call.layer)

    def output(self, call: AttentionCall, z: Tensor, attend: Attend = attend) -> Tensor:
        """Compute the chosen heads from their values and distances alone."""
        chosen = self.anew(call)
        if not chosen:
            return z
        self._check(call, chosen)
        part = call.select(chosen)
        weights, sinks = self.weights[call.layer], self.sinks.get(call.layer)
        missing = torch.zeros(len(weights)) if sinks is None else sinks
        new = attend_by_distance(part, weights[chosen].to(z.device), self.edges, missing[chosen].to(z.device))
        edited = z.clone()
        edited[:, chosen] = finish_heads(part, new.to(z))
        return edited

    def _check(self, call: AttentionCall, heads: list[int]) -> None:
        what = f"static attention of layer {call.layer}"
        if not call.causal:
            raise TaskError(what, found="attention to later keys", expected="causal attention")
        if farthest(call) > self.edges[-1]:
            raise TaskError(
                what,
                found=f"distances up to {farthest(call) - 1}",
                expected=f"at most {self.edges[-1] - 1}, as in the reference set",
                fix="Measure the weights on prompts as long as these.",
            )
        if any(bool(knockout.heads[heads].any()) for knockout in call.knockouts):
            raise TaskError(
                what,
                found="knockouts in the same heads",
                expected="keys that are hidden from all queries, or other heads",
                fix="Hide keys with KnockOutSinks.",
            )
