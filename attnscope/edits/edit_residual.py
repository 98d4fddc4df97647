"""Edits of the residual stream, of what attention or an MLP adds to it, and of MLP neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..core.errors import TaskError
from ._base import Edit
from ._recording import Recording
from ._tokens import Positions, Tokens, check_positions, chosen, written

if TYPE_CHECKING:
    from ..models._base import Site

Mode = Literal["zero", "mean", "patch", "scale", "add"]
SITES = ("block_input", "block_output", "attention_output", "mlp_output", "neurons")


@dataclass(frozen=True)
class EditResidual(Edit):
    """Change what stands at one site of some layers, at some positions and in some columns.

    Positions are counted from each prompt's first token, so that padding, batching and a key/value cache change
    nothing; positions that a prompt does not reach are no error. A patch (2202.05262) puts what a recording holds of
    the same prompt and position in place, and leaves positions alone that it does not hold; a recording of one prompt
    serves every row.

    Attributes:
        site: `block_input`, `block_output`, `attention_output`, `mlp_output` or `neurons`.
        layers: 0-based blocks.
        mode: `zero`; `mean`: `values` stand in place of it; `patch`: what `source` holds does; `scale`: times
            `factor`; `add`: `values` times `factor` are added.
        positions: in every prompt, or prompt → positions; None means all.
        columns: dimensions of the stream, or neurons; None means all.
        values: for `mean` and `add`: layer → `[M]` (or `[N]` neurons), whole also where columns are chosen.
        factor: for `scale` and `add`.
        source: for `patch`: a recording of this site.

    Raises:
        TaskError: an unknown site or mode, no layers, values or source missing; in use, columns that the site lacks,
            or positions or recorded prompts where those of the forward are not known.

    Example:
        >>> EditResidual("mlp_output", (1, 2), "zero", positions=(0,)).sites
        ('mlp_output',)
    """

    name: ClassVar[str] = "edit_residual"
    site: Site
    layers: tuple[int, ...]
    mode: Mode
    positions: Positions = field(default=None, hash=False)
    columns: tuple[int, ...] | None = None
    values: Mapping[int, Tensor] | None = field(default=None, hash=False)
    factor: float = 1.0
    source: Recording | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for what, found, expected in (("site", self.site, SITES), ("mode", self.mode, get_args(Mode))):
            if found not in expected:
                raise TaskError(f"{what} of a residual edit", found=repr(found), expected=", ".join(expected))
        if not self.layers:
            raise TaskError(self._what, found="no layers", expected="at least one")
        check_positions(self._what, self.positions)
        if self.mode in ("mean", "add"):
            lacking = sorted(set(self.layers) - set(self.values or ()))
            if lacking:
                raise TaskError(f"{self.mode} at {self.site}", found=f"no values for layers {lacking}", expected="[M]")
        if self.mode == "patch":
            if self.source is None:
                raise TaskError(self._what, found="no source", expected="a recording", fix="See engine.recordings.")
            self.source.check(self._what, self.layers, kind=self.site)

    @property
    def _what(self) -> str:
        return f"edit of {self.site} of layers {list(self.layers)}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it acts."""
        return (self.site,)

    def stream(self, layer: int, site: Site, x: Tensor, tokens: Tokens | None) -> Tensor:
        """Return what is to stand at the site `[B, T, M]`."""
        if layer not in self.layers:
            return x
        known = tokens or Tokens(None)
        positions = None if known.positions is None else known.positions.to(x.device)
        here = chosen(self._what, self.positions, positions, known.prompts)
        if self.mode == "patch":
            new, held = self._recorded(layer, x, positions, known.prompts)
            here = held if here is None else held & here
        else:
            new = self._new(layer, x)
        if self.columns is not None:
            new = torch.where(self._mask(x), new.to(x), x)
        return written(x, new, here)

    def _new(self, layer: int, x: Tensor) -> Tensor:
        if self.mode == "zero":
            return torch.zeros_like(x)
        if self.mode == "scale":
            return x * self.factor
        assert self.values is not None
        vector = self.values[layer].to(x)
        if vector.shape != x.shape[-1:]:
            raise TaskError(f"values for layer {layer}", found=tuple(vector.shape), expected=f"[{x.shape[-1]}]")
        return vector if self.mode == "mean" else x + self.factor * vector

    def _recorded(
        self, layer: int, x: Tensor, positions: Tensor | None, prompts: tuple[int, ...] | None
    ) -> tuple[Tensor, Tensor]:
        assert self.source is not None
        if positions is None:
            chosen(self._what, (), None, None)  # says that they are not known
        assert positions is not None
        return self.source.at(layer, self.source.rows(self._what, prompts, len(x)), positions)

    def _mask(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        outside = [column for column in self.columns or () if not 0 <= column < width]
        if outside:
            raise TaskError(f"columns of {self.site}", found=outside, expected=f"0..{width - 1}")
        mask = torch.zeros(width, dtype=torch.bool, device=x.device)
        mask[list(self.columns or ())] = True
        return mask
