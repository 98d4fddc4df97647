"""How sharp attention rows are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore, mean_over_queries


@dataclass(frozen=True)
class MaxProb(HeadScore):
    """Mean over queries of the largest attention weight in the row, range 0..1."""

    name: ClassVar[str] = "max_prob"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("max_prob", ("prompt", "layer", "head"), "1", "largest attention weight of a row"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for row maxima."""
        return Want(max_prob=True)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Average over every real query."""
        assert seen.result.max_prob is not None
        return mean_over_queries(seen.result.max_prob)
