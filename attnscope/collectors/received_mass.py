"""Attention that each key position receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from torch import Tensor

from attnscope_kernels import Want

from ..core import statistics
from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, Collector, Seen, State, ratio, to_numpy


def received_per_query(seen: AttentionSeen) -> tuple[Tensor, Tensor]:
    """Return α_j = received mass of key j over the number of valid queries that can see it, and that number.

    Returns:
        `[B, H, T]` (0 where no query sees the key) and `[B, T]`, float64.
    """
    received = seen.result.received
    assert received is not None
    valid = seen.call.valid_queries
    if seen.call.causal:
        later = valid.flip(1).cumsum(1).flip(1)
        if seen.call.window is not None:
            gone = later.new_zeros(later.shape)
            gone[:, : -seen.call.window or None] = later[:, seen.call.window :]
            later = later - gone
    else:
        later = valid.sum(1, keepdim=True).expand_as(valid)
    later = later.where(seen.batch.valid, 0)
    return received.double() / later.clamp_min(1)[:, None], later.double()


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

    def want(self, batch: Batch) -> Want:
        """Ask for column sums."""
        return Want(received=True)

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros `[L, H, positions]`."""
        shape = (len(info.attention_layers), info.n_heads, self.positions)
        return {"sum": np.zeros(shape), "count": np.zeros(shape)}

    def fold(self, state: State, seen: Seen) -> State:
        """Add the leading positions of each prompt."""
        assert isinstance(seen, AttentionSeen)
        alpha, queries = (to_numpy(x) for x in received_per_query(seen))
        for b, start in enumerate(to_numpy(seen.batch.starts).astype(int)):
            stop = start + self.positions
            kept = alpha[b, :, start:stop]
            state["sum"][seen.row, :, : kept.shape[-1]] += kept
            state["count"][seen.row, :, : kept.shape[-1]] += queries[b, start:stop] > 0
        return state

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return means over prompts."""
        return statistics.dataset(info, [(self.variables[0], ratio(state["sum"], state["count"]))])
