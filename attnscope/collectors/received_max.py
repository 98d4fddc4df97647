"""The most attended key of each head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore
from .received_mass import seen_by_enough


@dataclass(frozen=True)
class ReceivedMax(HeadScore):
    """Largest received mass a query over all keys, whichever key that is; range 0..1.

    Attributes:
        min_queries: keys seen by fewer queries are left out, but for the most widely seen of a short prompt.
    """

    name: ClassVar[str] = "received_max"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("received_max", ("prompt", "layer", "head"), "1", "attention received by the top key", "2406.15765"),
    )
    min_queries: int = 64

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for column sums."""
        return Want(received=True)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Take the maximum over keys that enough queries see."""
        enough = seen_by_enough(seen.queries_seeing, self.min_queries)
        if seen.result.received_exact is not None:  # the largest of many estimates would be too large
            enough = enough & seen.result.received_exact
        top = seen.received_per_query.where(enough[:, None], 0.0).amax(-1)
        return top, enough.any(1, keepdim=True)
