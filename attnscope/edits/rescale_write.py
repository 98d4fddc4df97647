"""Rescale or replace what attention or an MLP writes at chosen positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from ..core.errors import TaskError
from ._base import Edit
from .edit_residual import EditResidual

if TYPE_CHECKING:
    from ..models._base import Site
    from ._tokens import Tokens


@dataclass(frozen=True)
class RescaleWrite(Edit):
    """Multiply what one module adds to the residual stream at some positions, or put another vector in its place.

    Removing (`factor=0`) or rescaling the write that makes a sink is the causal test of 2512.22213. `EditResidual`
    does the same at any site and in any layers.

    Attributes:
        layer: 0-based block.
        module: `attention` or `mlp`.
        positions: prompt → positions in it, counted from its first token; None means every position of every prompt.
        factor: on the write.
        replacement: `[M]` written in place of it, or None.
        neurons: zero these MLP neurons in place of rescaling; None acts on the whole write.

    Raises:
        TaskError: positions are given where the prompts are not known (your own calls of the model), or neurons of
            attention.

    Example:
        >>> RescaleWrite(layer=1, positions={0: (0,)}, factor=0.0).sites
        ('mlp_output',)
    """

    name: ClassVar[str] = "rescale_write"
    layer: int
    module: Literal["attention", "mlp"] = "mlp"
    positions: Mapping[int, tuple[int, ...]] | None = field(default=None, hash=False)
    factor: float = 0.0
    replacement: Tensor | None = field(default=None, hash=False)
    neurons: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.neurons is not None and self.module != "mlp":
            raise TaskError("neurons of a write", found=f"module {self.module!r}", expected="'mlp'")

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it acts."""
        if self.neurons is not None:
            return ("neurons",)
        return ("attention_output",) if self.module == "attention" else ("mlp_output",)

    def stream(self, layer: int, site: Site, x: Tensor, tokens: Tokens | None) -> Tensor:
        """Return the write, rescaled or replaced at the positions."""
        return self._edit.stream(layer, site, x, tokens)

    @cached_property
    def _edit(self) -> EditResidual:
        site, layers, positions = self.sites[0], (self.layer,), self.positions
        if self.neurons is not None:
            return EditResidual(site, layers, "zero", positions, self.neurons)
        if self.replacement is not None:
            return EditResidual(site, layers, "mean", positions, values={self.layer: self.replacement})
        return EditResidual(site, layers, "scale", positions, factor=self.factor)
