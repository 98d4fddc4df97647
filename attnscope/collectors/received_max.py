"""The most attended key of each head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore
from .received_mass import received_per_query


@dataclass(frozen=True)
class ReceivedMax(HeadScore):
    """Largest received mass a query over all keys, whichever key that is; range 0..1.

    Attributes:
        min_queries: keys seen by fewer queries are left out (the last keys see themselves only). A prompt in which
            every key is seen by fewer is missing.
    """

    name: ClassVar[str] = "received_max"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("received_max", ("prompt", "layer", "head"), "1", "attention received by the top key", "2406.15765"),
    )
    min_queries: int = 16

    def want(self, batch: Batch) -> Want:
        """Ask for column sums."""
        return Want(received=True)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Take the maximum over keys that enough queries see."""
        alpha, queries = received_per_query(seen)
        enough = queries >= self.min_queries
        top = alpha.where(enough[:, None], 0.0).amax(-1)
        return top, enough.any(1, keepdim=True).double()
