"""Attention on the tokens after all earlier copies of the query's own token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._repeats import RepeatScore, earlier_copies


@dataclass(frozen=True)
class RazorInduction(RepeatScore):
    """Mean attention summed over the token after every earlier copy of the query's token, range 0..1 (2407.15891).

    RazorAttention's induction score, on four copies; `induction` looks at the nearest copy alone.
    """

    name: ClassVar[str] = "razor_induction"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("razor_induction", ("prompt", "layer", "head"), "1", "attention after earlier copies", "2407.15891"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass on the token after every earlier copy."""
        return Want(mass_at={self.name: earlier_copies(batch, self.name, copies=None, shift=1)})
