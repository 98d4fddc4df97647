"""How much of a head's pattern position alone explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from attnscope_kernels import Want

from ..core import statistics
from ..core.batch import Batch
from ..core.errors import StatisticsError
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, Collector, Seen, State, to_numpy


@dataclass(frozen=True)
class PositionalShare(Collector):
    """exp(−mean KL(row ‖ static row)), range 0..1: 1 where a head's pattern depends on distance alone.

    The static row of a query is w(d) over its visible keys, renormalised, where w(d) is the head's mean weight at
    distance d among the queries that have a key there. The mean KL follows exactly from the mass at each distance
    and the mean row entropy, so no pattern is kept: mean KL = −Σ_d M(d) log w(d) + mean log W − mean entropy.

    Attributes:
        max_tokens: longest prompt that can be folded.
    """

    name: ClassVar[str] = "positional_share"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("positional_share", ("layer", "head"), "1", "pattern explained by distance", "definition"),
    )
    max_tokens: int = 8192

    def want(self, batch: Batch) -> Want:
        """Ask for the mass at every distance and row entropies."""
        return Want(mass_by_distance=batch.unit_distances, entropy=True)

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros: masses `[L, H, max_tokens]`, entropy `[L, H]`, queries by number of keys `[L, max_tokens]`."""
        layers = len(info.attention_layers)
        return {
            "mass": np.zeros((layers, info.n_heads, self.max_tokens)),
            "entropy": np.zeros((layers, info.n_heads)),
            "rows": np.zeros((layers, self.max_tokens)),
        }

    def fold(self, state: State, seen: Seen) -> State:
        """Add masses, entropies and how many keys each query had."""
        assert isinstance(seen, AttentionSeen)
        result, lengths = seen.result, to_numpy(seen.batch.lengths).astype(int)
        assert result.mass_by_distance is not None
        assert result.entropy is not None
        if lengths.max() > self.max_tokens:
            raise StatisticsError(
                "positional_share", found=f"a prompt of {lengths.max()} tokens", expected=f"at most {self.max_tokens}"
            )
        by_distance = to_numpy(result.mass_by_distance.double().sum(0))[:, : self.max_tokens]
        state["mass"][seen.row, :, : by_distance.shape[1]] += by_distance
        state["entropy"][seen.row] += to_numpy(result.entropy.double().nansum((0, 2)))
        for length in lengths:
            keys = np.minimum(np.arange(length) + 1, seen.call.window or length)
            np.add.at(state["rows"][seen.row], keys - 1, 1)
        return state

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return exp(−mean KL) a head; missing for non-causal models."""
        layers, heads = state["entropy"].shape
        share = np.full((layers, heads), np.nan)
        for row in range(layers if info.causal else 0):
            having = state["rows"][row][::-1].cumsum()[::-1]
            queries = state["rows"][row].sum()
            if not queries:
                continue
            used = having > 0
            weight = state["mass"][row][:, used] / having[used]
            with np.errstate(divide="ignore", invalid="ignore"):
                cross = -np.where(weight > 0, having[used] * weight * np.log(weight), 0.0).sum(-1)
            total = np.log(np.maximum(weight.cumsum(-1), np.finfo(float).tiny)) @ state["rows"][row][used]
            share[row] = np.exp(np.minimum((state["entropy"][row] - cross - total) / queries, 0.0))
        return statistics.dataset(info, [(self.variables[0], share)])
