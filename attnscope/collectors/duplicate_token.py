"""Attention on the last earlier copy of the query's own token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._repeats import RepeatScore, earlier_copies


@dataclass(frozen=True)
class DuplicateToken(RepeatScore):
    """Mean attention weight on the nearest earlier copy of the query's token, on repeats; range 0..1 (2211.00593)."""

    name: ClassVar[str] = "duplicate_token"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("duplicate_token", ("prompt", "layer", "head"), "1", "attention on the earlier copy", "2211.00593"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass one period back."""
        return Want(mass_at={self.name: earlier_copies(batch, self.name, copies=1, shift=0)})
