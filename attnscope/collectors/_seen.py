"""What a collector's `fold` gets: one attention layer, or one site of the residual stream, of one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Result
from attnscope_kernels.residual import ResidualStatistics, residual_statistics

from ..core.batch import Batch
from ..core.model_info import ModelInfo


@dataclass(frozen=True, eq=False)
class AttentionSeen:
    """One attention layer of one batch, after edits.

    Attributes:
        row: the layer's row in `[L, H]` statistics.
        call: what the layer computed from.
        result: the reductions that the collectors wanted.
        output_projection: gives W_O as `[H, Dv, M]`.
    """

    info: ModelInfo
    batch: Batch
    row: int
    call: AttentionCall
    result: Result
    output_projection: Callable[[], Tensor]

    @cached_property
    def queries_seeing(self) -> Tensor:
        """`[B, T]` int64: how many valid queries can see each key; 0 on padding."""
        valid = self.call.valid_queries
        if not self.call.causal:
            return valid.sum(1, keepdim=True) * self.batch.valid
        later = valid.flip(1).cumsum(1).flip(1)
        window = self.call.window
        if window is not None and window < later.shape[1]:
            later = later - torch.nn.functional.pad(later[:, window:], (0, window))
        return later * self.batch.valid

    @cached_property
    def received_per_query(self) -> Tensor:
        """`[B, H, T]` α_j: what key j receives over the number of valid queries that can see it; 0 where none can."""
        received = self.result.received
        assert received is not None
        return received / self.queries_seeing.clamp_min(1)[:, None].to(received.dtype)


@dataclass(frozen=True, eq=False)
class ResidualSeen:
    """The residual stream `[B, T, M]` at one site of one block."""

    info: ModelInfo
    batch: Batch
    block: int
    site: str
    stream: Tensor

    @cached_property
    def statistics(self) -> ResidualStatistics:
        """Norms and sizes from one read of the stream; the first token is left out of the sums over tokens."""
        device = self.stream.device
        return residual_statistics(self.stream, self.batch.valid.to(device), skip=self.batch.starts.to(device))


Seen = AttentionSeen | ResidualSeen
