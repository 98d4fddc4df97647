"""How far back a head looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.errors import StatisticsError
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore, mean_over_queries


@dataclass(frozen=True)
class MeanDistance(HeadScore):
    """Mean over queries of the attention-weighted distance to the key, in tokens; sinks count like any key.

    Of a causal model it follows from what every key receives, at no cost a query: Σ_i Σ_j A[i, j]·(i − j) =
    Σ_i i·mass_i − Σ_j j·received_j, where mass_i is 1 less the weight of a sink logit.
    """

    name: ClassVar[str] = "mean_distance"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("mean_distance", ("prompt", "layer", "head"), "token", "attention-weighted distance"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for column sums of a causal model (and lse, which they need anyway), else for each row's first moment."""
        return Want(received=True, lse=True) if info.causal else Want(mean_distance=True)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Average over every real query that sees a key."""
        if seen.result.mean_distance is not None:
            return mean_over_queries(seen.result.mean_distance)
        if not seen.call.causal:
            raise StatisticsError(
                f"mean_distance of layer {seen.call.layer}",
                found="attention to later keys",
                expected="none, as the description of the model says",
                fix="Set `causal=False` in the model's info.",
            )
        return summed_distances(seen)


def summed_distances(seen: AttentionSeen) -> tuple[Tensor, Tensor]:
    """Return Σ over queries of the attention-weighted distance of a causal call, and how many queries, `[B, H]` each.

    What the keys receive is scaled to what the queries give, so that a rounding error that all weights share cancels.
    """
    received, lse, call = seen.result.received, seen.result.lse, seen.call
    assert received is not None
    assert lse is not None
    counted = ~lse.isnan()
    mass = counted.to(lse.dtype)
    if call.sink_logits is not None:
        share = (call.sink_logits.to(lse.dtype)[:, None] - lse).exp()
        mass = (1 - share).where(counted, 0.0)
    keys = torch.arange(received.shape[2], device=received.device, dtype=torch.float64)
    given, taken = mass.sum(-1, dtype=torch.float64), received.sum(-1, dtype=torch.float64)
    far = (mass * (keys[: mass.shape[2]] + call.offset)).sum(-1)
    near = (received * keys).sum(-1) * (given / taken.clamp_min(torch.finfo(torch.float64).tiny))
    return far - near, counted.sum(-1)
