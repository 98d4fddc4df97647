"""Attention that each key position receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from attnscope_kernels import Want

from ..core import statistics
from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, Collector, Fold, Seen, State, ratio


def seen_by_enough(queries: Tensor, least: int) -> Tensor:
    """Return which keys `[B, T]` are seen by `least` queries, or by as many as any key of the prompt is.

    The last keys of a prompt are seen by few queries, so what they receive says little.
    """
    return queries >= queries.amax(1, keepdim=True).clamp_max(least).clamp_min(1)


@dataclass(frozen=True)
class ReceivedMass(Collector):
    """Mean attention that a position receives from each query that can see it, range 0..1 (2410.10781's α_k).

    Attributes:
        positions: how many leading positions are kept.
    """

    name: ClassVar[str] = "received_mass"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("received_mass", ("layer", "head", "position"), "1", "attention received a query", "2410.10781"),
    )
    positions: int = 128

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for column sums."""
        return Want(received=True)

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros `[L, H, positions]`."""
        shape = (len(info.attention_layers), info.n_heads, self.positions)
        return {"sum": np.zeros(shape), "count": np.zeros(shape)}

    def fold(self, state: State, seen: Seen) -> Fold:
        """Add the leading positions of each prompt."""
        assert isinstance(seen, AttentionSeen)
        row, reduced = seen.row, self._reduced(seen)
        del seen
        total, count = yield reduced
        state["sum"][row, :, : total.shape[1]] += total
        state["count"][row, :, : count.shape[0]] += count

    def _reduced(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        alpha, queries = seen.received_per_query, seen.queries_seeing
        length = queries.shape[1]
        n = min(self.positions, length)
        at = seen.batch.starts[:, None] + torch.arange(n, device=queries.device)
        inside, at = at < length, at.clamp_max(length - 1)
        kept = alpha.gather(2, at[:, None].expand(-1, alpha.shape[1], -1)).where(inside[:, None], 0.0)
        seen_keys = (queries.gather(1, at) > 0) & inside
        return kept.sum(0, dtype=torch.float64), seen_keys.sum(0)

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return means over prompts."""
        return statistics.dataset(info, [(self.variables[0], ratio(state["sum"], state["count"]))])
