"""How far back a head looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore, mean_over_queries


@dataclass(frozen=True)
class MeanDistance(HeadScore):
    """Mean over queries of the attention-weighted distance to the key, in tokens; sinks count like any key."""

    name: ClassVar[str] = "mean_distance"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("mean_distance", ("prompt", "layer", "head"), "token", "attention-weighted distance"),
    )

    def want(self, batch: Batch) -> Want:
        """Ask for the first moment of each row."""
        return Want(mean_distance=True)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Average over every real query."""
        assert seen.result.mean_distance is not None
        return mean_over_queries(seen.result.mean_distance)
