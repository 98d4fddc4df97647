"""Value norms: whether the first token's value is drained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore


def first_over_rest(norms: Tensor, batch: Batch) -> Tensor:
    """Return the first real token's norm over the mean of the others.

    Args:
        norms: `[B, heads, T]`.

    Returns:
        `[B, heads]` float64, NaN where a prompt has one token.
    """
    first = norms.gather(2, batch.starts[:, None, None].expand(-1, norms.shape[1], 1))[..., 0].double()
    total = norms.where(batch.valid[:, None], 0.0).sum(-1, dtype=torch.float64)
    return first / ((total - first) / (batch.lengths - 1)[:, None])


@dataclass(frozen=True)
class ValueNorm(HeadScore):
    """‖v‖ of the first token over the mean ‖v‖ of the others, range 0..∞; far below 1 in a drained sink (2410.13835).

    Query heads of one KV head share the value.
    """

    name: ClassVar[str] = "value_norm"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable(
            "value_norm_ratio", ("prompt", "layer", "head"), "1", "value norm, first token / others", "2410.13835"
        ),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for value norms."""
        return Want(value_norm=True)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Compare the first token with the rest."""
        assert seen.result.value_norm is not None
        ratio = first_over_rest(seen.result.value_norm, seen.batch)
        ratio = ratio.repeat_interleave(seen.call.group_size, 1)
        measured = ~ratio.isnan()
        return ratio.where(measured, 0.0), measured
