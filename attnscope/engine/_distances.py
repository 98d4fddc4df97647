"""Attention by distance over a prompt set, on the queries of each prompt's first and second half."""

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


FAINT = 1e-9
"""Factor on the weights of the first halves: they decide where nothing else of a head's pattern is visible yet."""


class Distances:
    """Sums of attention in bins of distance, layer by layer.

    Weights come from the second half of each prompt, whose queries see most distances. A head that looks further back
    than the text goes has no weight there for what it does at first; that comes from the first halves, times FAINT.

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
        halves = [(range(1, length // 2 + 1), range(length // 2 + 1, length + 1)) for length in lengths]
        self.rows = [[keys for prompt in halves for keys in prompt[half]] for half in (0, 1)]
        self.mass: dict[tuple[int, int], Tensor] = {}
        self.windows: dict[int, int | None] = {}
        self.sinks: set[int] = set()

    def add(self, call: AttentionCall, batch: Batch) -> None:
        """Add the attention of one layer."""
        position, middle = batch.valid.long().cumsum(1) - 1, batch.lengths[:, None] // 2
        want = Want(output=False, mass_by_distance=batch.distance_edges)
        for half, chosen in enumerate((position < middle, position >= middle)):
            counted = call.replace(query_valid=(chosen & batch.valid).to(call.q.device), head_output=None)
            mass = attend(counted, want, self.implementation).mass_by_distance
            assert mass is not None
            total = self.mass.setdefault(
                (call.layer, half),
                torch.zeros(mass.shape[1], len(self.edges) - 1, dtype=torch.float64, device=mass.device),
            )
            total[:, : mass.shape[2]] += mass.sum(0, dtype=torch.float64)
        self.windows[call.layer] = call.window
        if call.sink_logits is not None:
            self.sinks.add(call.layer)

    def weights(self) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Return layer → `[H, bins]` weights by distance, and `[H]` that of no key."""
        weights, sinks = {}, {}
        for layer in self.windows:
            (faint, _), (made, sink) = self._fit(layer, 0), self._fit(layer, 1)
            device = self.mass[layer, 1].device
            weights[layer] = torch.from_numpy(made + FAINT * faint).to(device)
            sinks[layer] = torch.from_numpy(sink).to(device)
        return weights, sinks

    def _fit(self, layer: int, half: int) -> tuple[np.ndarray, np.ndarray]:
        mass, window = self.mass[layer, half].cpu().numpy(), self.windows[layer]
        if not self.rows[half]:  # prompts of one token have no first half
            return np.zeros_like(mass), np.zeros(len(mass))
        keys, queries = np.unique(np.minimum(self.rows[half], window or max(self.rows[half])), return_counts=True)
        sink = np.maximum(queries.sum() - mass.sum(1), 0) if layer in self.sinks else np.zeros(len(mass))
        return distance_weights(mass, sink, keys, queries.astype(float), np.array(self.edges))
