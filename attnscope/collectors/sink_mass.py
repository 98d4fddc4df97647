"""Attention on every sink of the layer, and which tokens those are."""

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
from .received_mass import seen_by_enough


@dataclass(frozen=True)
class SinkMass(Collector):
    """Share of a head's attention that lands on its layer's sinks, range 0..1, and the sinks themselves.

    A key is a sink of its layer where the attention that it receives a query, averaged over the layer's heads, is
    above `threshold` (2406.15765 takes 0.1). The first token has no special part here.

    Attributes:
        threshold: strict `>`.
        min_queries: keys seen by fewer queries cannot be sinks, but for the most widely seen of a short prompt.
        ranks: how many of the strongest sinks of each prompt and layer are kept by position.
    """

    name: ClassVar[str] = "sink_mass"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("sink_mass", ("prompt", "layer", "head"), "1", "attention on the layer's sinks", "2406.15765"),
        Variable("sink_position", ("prompt", "layer", "rank"), "token", "position of a sink", "2406.15765"),
        Variable("sink_token", ("prompt", "layer", "rank"), "id", "token id of a sink", "2406.15765"),
        Variable(
            "sink_received", ("prompt", "layer", "rank"), "1", "attention received, mean over heads", "2406.15765"
        ),
    )
    threshold: float = 0.1
    min_queries: int = 64
    ranks: int = 8

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for column sums."""
        return Want(received=True)

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros: head masses `[n, L, H]` and sinks `[n, L, ranks]` (positions stored plus one)."""
        layers = len(info.attention_layers)
        heads, ranks = (n_prompts, layers, info.n_heads), (n_prompts, layers, self.ranks)
        return {
            "sum": np.zeros(heads),
            "count": np.zeros(heads),
            "position": np.zeros(ranks),
            "token": np.zeros(ranks),
            "received": np.zeros(ranks),
        }

    def fold(self, state: State, seen: Seen) -> Fold:
        """Find the layer's sinks and add each head's mass on them."""
        assert isinstance(seen, AttentionSeen)
        where, row, reduced = list(seen.batch.prompts), seen.row, self._reduced(seen)
        del seen
        mass, count, position, token, strength = yield reduced
        kept = slice(0, position.shape[1])
        state["sum"][where, row] += mass
        state["count"][where, row] += count
        state["position"][where, row, kept] += position
        state["token"][where, row, kept] += token
        state["received"][where, row, kept] += strength

    def _reduced(self, seen: AttentionSeen) -> tuple[Tensor, ...]:
        received, batch = seen.result.received, seen.batch
        assert received is not None
        enough = seen_by_enough(seen.queries_seeing, self.min_queries)
        level = seen.received_per_query.mean(1, dtype=torch.float64).where(enough, 0.0)
        sinks = level > self.threshold
        top = level.where(sinks, 0.0).topk(min(self.ranks, level.shape[1]), dim=1)
        held = top.values > 0
        return (
            received.where(sinks[:, None], 0.0).sum(-1, dtype=torch.float64),
            seen.call.valid_queries.sum(1, keepdim=True),
            (top.indices - batch.starts[:, None] + 1).where(held, 0),
            batch.input_ids.gather(1, top.indices).where(held, 0),
            top.values,
        )

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return masses, and sinks with NaN at unused ranks."""
        held = state["position"] > 0
        mass, position, token, received = self.variables
        return statistics.dataset(
            info,
            [
                (mass, ratio(state["sum"], state["count"])),
                (position, np.where(held, state["position"] - 1, np.nan)),
                (token, np.where(held, state["token"], np.nan)),
                (received, np.where(held, state["received"], np.nan)),
            ],
            attrs={"sink_mass_threshold": self.threshold, "sink_mass_comparison": ">"},
        )
