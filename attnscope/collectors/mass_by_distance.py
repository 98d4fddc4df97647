"""Attention by distance: each head's distance profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from attnscope_kernels import Want

from ..core import statistics
from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, Collector, Seen, State, ratio, to_numpy

EDGES = (0, 1, *(2**power for power in range(1, 21)))


@dataclass(frozen=True)
class MassByDistance(Collector):
    """Mean attention mass of a query in log₂ bins of distance: 0, 1, 2–3, 4–7, … tokens; range 0..1, sums to 1."""

    name: ClassVar[str] = "mass_by_distance"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("mass_by_distance", ("layer", "head", "distance_bin"), "1", "attention mass at this distance"),
    )

    def want(self, batch: Batch) -> Want:
        """Ask for the mass at every distance."""
        return Want(mass_by_distance=batch.unit_distances)

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros: masses `[L, H, bins]`, queries `[L, 1, 1]`."""
        layers = len(info.attention_layers)
        return {"sum": np.zeros((layers, info.n_heads, len(EDGES) - 1)), "queries": np.zeros((layers, 1, 1))}

    def fold(self, state: State, seen: Seen) -> State:
        """Add up unit distances into bins."""
        assert isinstance(seen, AttentionSeen)
        assert seen.result.mass_by_distance is not None
        by_distance = to_numpy(seen.result.mass_by_distance.double().sum(0))
        starts = [edge for edge in EDGES[:-1] if edge < by_distance.shape[-1]]
        state["sum"][seen.row, :, : len(starts)] += np.add.reduceat(by_distance, starts, axis=-1)
        state["queries"][seen.row] += float(seen.call.valid_queries.sum())
        return state

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return masses a query, without the far bins that nothing reached."""
        used = int(np.flatnonzero(state["sum"].sum((0, 1)))[-1]) + 1 if state["sum"].any() else 1
        mean = ratio(state["sum"], state["queries"])[..., :used]
        return statistics.dataset(info, [(self.variables[0], mean)], coords={"distance_bin": list(EDGES[:used])})
