"""Attention by distance: each head's distance profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import xarray as xr

from attnscope_kernels import Want

from ..core import statistics
from ..core.batch import DISTANCE_GRID, Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, Collector, Fold, Seen, State, ratio

EDGES = (0, 1, *(2**power for power in range(1, 22)))


@dataclass(frozen=True)
class MassByDistance(Collector):
    """Mean attention mass of a query in log₂ bins of distance: 0, 1, 2–3, 4–7, … tokens; range 0..1, sums to 1."""

    name: ClassVar[str] = "mass_by_distance"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("mass_by_distance", ("layer", "head", "distance_bin"), "1", "attention mass at this distance"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass in bins of distance, of which each log₂ bin holds whole ones."""
        return Want(mass_by_distance=batch.distance_edges)

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros: masses `[L, H, bins]`, queries `[L, 1, bins]`."""
        layers, bins = len(info.attention_layers), len(EDGES) - 1
        return {"sum": np.zeros((layers, info.n_heads, bins)), "queries": np.zeros((layers, 1, bins))}

    def fold(self, state: State, seen: Seen) -> Fold:
        """Add up the bins that each log₂ bin holds."""
        assert isinstance(seen, AttentionSeen)
        assert seen.result.mass_by_distance is not None
        row = seen.row
        every = seen.batch.farthest is None or seen.batch.farthest >= seen.batch.valid.shape[1]
        reduced = seen.result.mass_by_distance.sum(0, dtype=torch.float64), seen.call.valid_queries.sum()
        del seen
        by_distance, queries = yield reduced
        starts = [DISTANCE_GRID.index(edge) for edge in EDGES[:-1]]
        starts = [start for start in starts if start < by_distance.shape[-1]]
        state["sum"][row, :, : len(starts)] += np.add.reduceat(by_distance, starts, axis=-1)
        state["queries"][row, :, : None if every else len(starts)] += queries

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return masses a query, without the far bins that nothing reached; NaN from where nothing was measured."""
        reached, measured = (np.abs(state[key]).sum((0, 1)) > 0 for key in ("sum", "queries"))
        used = int(np.flatnonzero(reached)[-1]) + 1 if reached.any() else 1
        if used < len(measured) and not measured[used]:
            used += 1  # the bin of all that is farther, missing
        mean = ratio(state["sum"], state["queries"])[..., :used]
        return statistics.dataset(info, [(self.variables[0], mean)], coords={"distance_bin": list(EDGES[:used])})
