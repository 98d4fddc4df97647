"""Attention on the token after the last earlier copy of the query's own token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._repeats import RepeatScore, earlier_copies


@dataclass(frozen=True)
class Induction(RepeatScore):
    """Mean attention weight on the token after the nearest earlier copy, on repeats; range 0..1 (2209.11895).

    Queries are those whose token has an earlier copy. The plain diagonal at offset 1 − S has two entries more, at its
    start: the first lies on BOS (a sink, not induction), the second on a query that never saw its token before.

    Example:
        >>> Induction().name
        'induction'
    """

    name: ClassVar[str] = "induction"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("induction", ("prompt", "layer", "head"), "1", "attention on the token to copy", "2209.11895"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass one period back, plus one."""
        return Want(mass_at={self.name: earlier_copies(batch, self.name, copies=1, shift=1)})
