"""Attention by distance over a prompt set, on the queries of each prompt's second half."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Want, attend

from ..analyses.distance_weights import distance_weights
from ..core.batch import DISTANCE_GRID, Batch
from ..core.errors import TaskError, UnsupportedModelError

if TYPE_CHECKING:
    from ..core.model_info import ModelInfo


class Distances:
    """Sums of attention in bins of distance, layer by layer.

    Args:
        info: of the model.
        lengths: tokens of each prompt.
        implementation: kernel implementation.

    Raises:
        UnsupportedModelError: attention is not causal.
        TaskError: prompts longer than the grid of distances.
    """

    def __init__(self, info: ModelInfo, lengths: list[int], implementation: str) -> None:
        if not info.causal:
            raise UnsupportedModelError(info.model_id, found="attention to later keys", expected="a causal model")
        if max(lengths) > DISTANCE_GRID[-1]:
            raise TaskError("distances", found=f"{max(lengths)} tokens", expected=f"at most {DISTANCE_GRID[-1]}")
        self.edges = DISTANCE_GRID[: bisect_left(DISTANCE_GRID, max(lengths)) + 1]
        self.implementation = implementation
        self.rows = [keys for length in lengths for keys in range(length // 2 + 1, length + 1)]
        self.mass: dict[int, Tensor] = {}
        self.windows: dict[int, int | None] = {}
        self.sinks: set[int] = set()

    def add(self, call: AttentionCall, batch: Batch) -> None:
        """Add the attention of one layer."""
        late = (batch.valid.long().cumsum(1) - 1) >= batch.lengths[:, None] // 2
        counted = call.replace(query_valid=(late & batch.valid).to(call.q.device), head_output=None)
        want = Want(output=False, mass_by_distance=batch.distance_edges)
        mass = attend(counted, want, self.implementation).mass_by_distance
        assert mass is not None
        total = self.mass.setdefault(
            call.layer, torch.zeros(mass.shape[1], len(self.edges) - 1, dtype=torch.float64, device=mass.device)
        )
        total[:, : mass.shape[2]] += mass.sum(0, dtype=torch.float64)
        self.windows[call.layer] = call.window
        if call.sink_logits is not None:
            self.sinks.add(call.layer)

    def weights(self) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Return layer → `[H, bins]` weights by distance, and `[H]` that of no key."""
        weights, sinks = {}, {}
        for layer, total in sorted(self.mass.items()):
            window = self.windows[layer]
            keys, queries = np.unique(np.minimum(self.rows, window or max(self.rows)), return_counts=True)
            mass = total.cpu().numpy()
            sink = np.maximum(queries.sum() - mass.sum(1), 0) if layer in self.sinks else np.zeros(len(mass))
            made = distance_weights(mass, sink, keys, queries.astype(float), np.array(self.edges))
            weights[layer], sinks[layer] = (torch.from_numpy(array).to(total.device) for array in made)
        return weights, sinks
