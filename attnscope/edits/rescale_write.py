"""Rescale or replace what attention or an MLP writes at chosen positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from ..core.errors import TaskError
from ._base import Edit

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..models._base import Site


@dataclass(frozen=True)
class RescaleWrite(Edit):
    """Multiply what one module adds to the residual stream at some positions, or put another vector in its place.

    Removing (`factor=0`) or rescaling the write that makes a sink is the causal test of 2512.22213.

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

    def stream(self, layer: int, site: Site, x: Tensor, batch: Batch | None) -> Tensor:
        """Return the write, rescaled or replaced at the positions."""
        if layer != self.layer:
            return x
        changed = x.clone()
        if self.positions is None:
            changed[:] = self._new(x)
            return changed
        if batch is None:
            raise TaskError(
                f"rescaling of the {self.module} write of layer {self.layer}",
                found="positions, and a forward whose prompts are not known",
                expected="positions=None, or a pass over a prompt set",
            )
        starts = batch.starts.tolist()
        for row, prompt in enumerate(batch.prompts):
            at = [starts[row] + position for position in self.positions.get(prompt, ())]
            if at:
                changed[row, at] = self._new(x[row, at])
        return changed

    def _new(self, write: Tensor) -> Tensor:
        if self.neurons is not None:
            kept = write.clone()
            kept[..., list(self.neurons)] = 0
            return kept
        if self.replacement is not None:
            return self.replacement.to(write).expand_as(write)
        return write * self.factor
