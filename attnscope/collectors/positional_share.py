"""How much of a head's pattern position alone explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import xarray as xr

from attnscope_kernels import Want

from ..core import statistics
from ..core.batch import DISTANCE_GRID, Batch
from ..core.errors import StatisticsError
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, Collector, Fold, Seen, State
from ._static_rows import pairs_in_bins, summed_log_totals

EDGES = np.array(DISTANCE_GRID)


@dataclass(frozen=True)
class PositionalShare(Collector):
    """exp(−mean KL(row ‖ static row)), range 0..1: 1 where a head's pattern depends on distance alone.

    The static row of a query is w(d) over its visible keys, renormalised, where w(d) is constant within each bin of
    `core.batch.DISTANCE_GRID`: the head's mass in the bin over the number of (query, key) pairs there. The mean KL
    follows exactly from the mass in each bin and the mean row entropy, so no pattern is kept: mean KL =
    −Σ_b M(b) log w_b + mean over queries of log W(visible keys) − mean entropy. A sink logit is one more outcome,
    with the same weight in every static row.

    Distances below 64 have a bin each. Farther ones share bins of an eighth of an octave, from 1024 on of half of one,
    because only few queries have a key at any one far distance: a weight for each would fit noise (and the first token,
    which stands at the far end of every row). Wide bins also cost the kernels little. A head that rests on one exact
    far distance is therefore credited with its bin alone.
    """

    name: ClassVar[str] = "positional_share"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("positional_share", ("layer", "head"), "1", "pattern explained by distance", "definition"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass in bins of distance and row entropies.

        Raises:
            StatisticsError: the batch bins near distances alone.
        """
        if batch.farthest is not None:
            raise StatisticsError(
                "positional_share",
                found=f"distances up to {batch.farthest} only, as under a screen",
                expected="every distance",
                fix="Leave it out, or collect without a screen.",
            )
        return Want(mass_by_distance=batch.distance_edges, entropy=True)

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros: masses `[L, H, bins]`, entropies and sink masses `[L, H]`, tokens and visible keys `[n, L]`."""
        layers = len(info.attention_layers)
        return {
            "mass": np.zeros((layers, info.n_heads, len(EDGES) - 1)),
            "entropy": np.zeros((layers, info.n_heads)),
            "sink": np.zeros((layers, info.n_heads)),
            "length": np.zeros((n_prompts, layers)),
            "keys": np.zeros((n_prompts, layers)),
        }

    def fold(self, state: State, seen: Seen) -> Fold:
        """Add masses and entropies, and note how many keys the queries of each prompt see."""
        assert isinstance(seen, AttentionSeen)
        assert seen.result.mass_by_distance is not None
        assert seen.result.entropy is not None
        reduced = (
            seen.result.mass_by_distance.sum(0, dtype=torch.float64),
            seen.result.entropy.nansum(-1, dtype=torch.float64).sum(0),
            (~seen.result.entropy.isnan()).sum((0, 2)),
            seen.batch.lengths,
        )
        where, row = list(seen.batch.prompts), seen.row
        has_sink, window = seen.call.sink_logits is not None, seen.call.window or np.inf
        del seen
        mass, entropy, queries, lengths = yield reduced
        state["mass"][row, :, : mass.shape[1]] += mass
        state["entropy"][row] += entropy
        if has_sink:
            state["sink"][row] += queries - mass.sum(1)
        state["length"][where, row] += lengths
        state["keys"][where, row] += np.minimum(lengths, window)

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return exp(−mean KL) a head; missing for non-causal models."""
        share = np.full(state["entropy"].shape, np.nan)
        for row in range(len(share) if info.causal else 0):
            measured = state["length"][:, row] > 0
            if measured.any():
                lengths, keys = state["length"][measured, row], state["keys"][measured, row]
                mass, entropy, sink = (state[key][row] for key in ("mass", "entropy", "sink"))
                share[row] = np.exp(-np.maximum(_mean_divergence(mass, entropy, sink, lengths, keys), 0.0))
        return statistics.dataset(info, [(self.variables[0], share)])


def _mean_divergence(
    mass: np.ndarray, entropy: np.ndarray, sink: np.ndarray, lengths: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    """Return the mean KL `[H]` of rows to static rows, from sums over all queries."""
    queries = lengths.sum()
    weights = mass / np.maximum(pairs_in_bins(EDGES, lengths, keys), 1)
    cross = -(_times_log(mass, weights).sum(1) + _times_log(sink, sink / queries))
    totals = summed_log_totals(weights, EDGES, lengths, keys.astype(int), sink / queries)
    return (cross + totals - entropy) / queries


def _times_log(factor: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return factor·log(value), 0 where value is 0."""
    return factor * np.log(value, out=np.zeros_like(value), where=value > 0)
