"""Attention on the last few tokens."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import DISTANCE_GRID, Batch
from ..core.errors import StatisticsError
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore


@dataclass(frozen=True)
class LocalMass(HeadScore):
    """Share of a head's attention at distances below `window` (the query itself is distance 0), range 0..1.

    Attributes:
        window: tokens; an edge of the distance bins, so any number up to 64, then 72, 80, 88, …

    Raises:
        StatisticsError: `window` lies inside a bin.
    """

    name: ClassVar[str] = "local_mass"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("local_mass", ("prompt", "layer", "head"), "1", "attention on the last tokens"),
    )
    window: int = 16

    def __post_init__(self) -> None:
        if self.window in DISTANCE_GRID[1:]:
            return
        above = min(max(bisect_left(DISTANCE_GRID, self.window), 1), len(DISTANCE_GRID) - 1)
        raise StatisticsError(
            "local_mass, window",
            found=self.window,
            expected="an edge of the distance bins: any number in 1..64, then 72, 80, …, 128, 144, …",
            fix=f"Take {DISTANCE_GRID[max(above - 1, 1)]} or {DISTANCE_GRID[above]}.",
        )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass in bins of distance."""
        return Want(mass_by_distance=batch.distance_edges)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Sum the near bins."""
        by_distance = seen.result.mass_by_distance
        assert by_distance is not None
        near = by_distance[..., : DISTANCE_GRID.index(self.window)].sum(-1, dtype=torch.float64)
        return near, seen.call.valid_queries.sum(1, keepdim=True)
