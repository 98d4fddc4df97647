"""Massive activations at block outputs (2402.17762)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.sink_report import MassiveActivation

MOST = 200


class Massive:
    """Collects |x| > floor and >= `least_ratio` times the median |x| of the prompt's hidden state, all tokens.

    Example:
        >>> x = torch.ones(1, 2, 600)
        >>> x[0, 1, 7] = 5000
        >>> found = Massive(floor=100.0, least_ratio=1000.0)
        >>> found.see(Batch(torch.zeros(1, 2).long(), torch.ones(1, 2).bool(), (0,), 1), 3, x)
        >>> [(one.layer, one.position, one.dimension, one.ratio) for one in found.largest()]
        [(3, 1, 7, 5000.0)]
    """

    def __init__(self, floor: float, least_ratio: float) -> None:
        self.floor, self.least_ratio = floor, least_ratio
        self._found: list[MassiveActivation] = []

    def see(self, batch: Batch, layer: int, x: Tensor) -> None:
        """Look at one block's output `[B, T, M]`."""
        for row, (start, length) in enumerate(zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)):
            state = x[row, start : start + length].float()
            size = state.abs()
            median = size.flatten().median()
            where = ((size > self.floor) & (size >= self.least_ratio * median) & (size > 0)).nonzero()
            if not len(where):
                continue
            values = state[where[:, 0], where[:, 1]]
            order = values.abs().topk(min(MOST, len(values))).indices
            scale = max(float(median), torch.finfo(torch.float32).tiny)
            for (position, dimension), value in zip(where[order].tolist(), values[order].tolist(), strict=True):
                self._found.append(
                    MassiveActivation(
                        layer=layer,
                        prompt=batch.prompts[row],
                        position=position,
                        dimension=dimension,
                        value=value,
                        ratio=abs(value) / scale,
                    )
                )
        self._found = list(self.largest())

    def largest(self) -> tuple[MassiveActivation, ...]:
        """Return the largest 200 by ratio."""
        ordered = sorted(self._found, key=lambda m: (-m.ratio, m.layer, m.prompt, m.position, m.dimension))
        return tuple(ordered[:MOST])
