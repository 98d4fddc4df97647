"""Attention on the token before the query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore, mean_over_queries


@dataclass(frozen=True)
class PreviousToken(HeadScore):
    """Mean attention weight on the previous token over all queries but the first, range 0..1 (2209.11895)."""

    name: ClassVar[str] = "previous_token"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("previous_token", ("prompt", "layer", "head"), "1", "attention on the previous token", "2209.11895"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass one key back."""
        t = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
        return Want(mass_at={self.name: (t - 1).where(t > batch.starts[:, None], -1)})

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Average over queries that have a previous token."""
        return mean_over_queries(seen.result.mass_at[self.name])
