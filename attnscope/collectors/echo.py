"""Attention on all earlier copies of the query's own token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._repeats import RepeatScore, earlier_copies


@dataclass(frozen=True)
class Echo(RepeatScore):
    """Mean attention weight summed over every earlier copy of the query's token, range 0..1 (2407.15891).

    With two copies it equals `duplicate_token`; RazorAttention uses four.
    """

    name: ClassVar[str] = "echo"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("echo", ("prompt", "layer", "head"), "1", "attention on all earlier copies", "2407.15891"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass on every earlier copy."""
        return Want(mass_at={self.name: earlier_copies(batch, self.name, copies=None, shift=0)})
