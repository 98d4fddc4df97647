"""Entropy of attention rows."""

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
class Entropy(HeadScore):
    """Mean entropy of a head's attention rows in nats, range 0..log(visible keys)."""

    name: ClassVar[str] = "entropy"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("entropy", ("prompt", "layer", "head"), "nat", "entropy of attention rows"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for row entropies."""
        return Want(entropy=True)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Average over every real query."""
        assert seen.result.entropy is not None
        return mean_over_queries(seen.result.entropy)
