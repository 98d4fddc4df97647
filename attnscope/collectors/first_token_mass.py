"""Attention on each prompt's first token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore, mean_over_queries


@dataclass(frozen=True)
class FirstTokenMass(HeadScore):
    """Mean attention weight on the first token over all queries, itself included: α₁ of 2410.10781, range 0..1.

    Example:
        >>> FirstTokenMass().variables[0].units
        '1'
    """

    name: ClassVar[str] = "first_token_mass"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("first_token_mass", ("prompt", "layer", "head"), "1", "attention on the first token", "2410.10781"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass at the first token."""
        return Want(mass_at={"first_token": batch.first_token})

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Average over every real query."""
        return mean_over_queries(seen.result.mass_at["first_token"])
