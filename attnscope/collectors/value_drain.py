"""Value drain through W_O: how little the first token writes when a head attends to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.names import Variable
from ._base import AttentionSeen, HeadScore
from .value_norm import first_over_rest


@dataclass(frozen=True)
class ValueDrain(HeadScore):
    """‖v W_O‖ of the first token over the mean of the others, per query head, range 0..∞ (2410.13835).

    What a head would write into the residual stream if all its attention were on that token; far below 1 where the
    sink's value is drained.
    """

    name: ClassVar[str] = "value_drain"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("value_drain", ("prompt", "layer", "head"), "1", "written norm, first token / others", "2410.13835"),
    )

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Use the Gram matrix of W_O, so that no `[T, M]` tensor a head is made."""
        projection = seen.output_projection().float()
        gram = torch.einsum("hdm,hem->hde", projection, projection)
        v = seen.call.v.float()
        groups = gram.unflatten(0, (v.shape[1], seen.call.group_size))
        squared = torch.einsum("bgtd,gnde,bgte->bgnt", v, groups, v).flatten(1, 2)
        ratio = first_over_rest(squared.clamp_min(0).sqrt(), seen.batch)
        measured = ~ratio.isnan()
        return ratio.where(measured, 0.0), measured.double()
