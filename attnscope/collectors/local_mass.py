"""Attention on the last few tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore


@dataclass(frozen=True)
class LocalMass(HeadScore):
    """Share of a head's attention at distances below `window` (the query itself is distance 0), range 0..1.

    Attributes:
        window: tokens.
    """

    name: ClassVar[str] = "local_mass"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("local_mass", ("prompt", "layer", "head"), "1", "attention on the last tokens"),
    )
    window: int = 16

    def want(self, batch: Batch) -> Want:
        """Ask for the mass at every distance."""
        return Want(mass_by_distance=batch.unit_distances)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Sum the near distances."""
        by_distance = seen.result.mass_by_distance
        assert by_distance is not None
        near = by_distance[..., : self.window].double().sum(-1)
        return near, seen.call.valid_queries.sum(1, keepdim=True).double()
