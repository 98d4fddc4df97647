"""Steering: a direction is added to the residual stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ..core.errors import TaskError
from ._base import Edit
from ._direction import check_place, check_width
from ._tokens import Positions, Tokens, chosen, written

if TYPE_CHECKING:
    from ..models._base import Site


@dataclass(frozen=True)
class Steer(Edit):
    """Add coefficient · direction to the residual stream (activation addition, 2308.10248).

    Positions are counted from each prompt's first token, tokens of a key/value cache included.

    Attributes:
        direction: `[M]`, as it is added: no norm is taken.
        coefficient: its factor; two edits with opposite ones at one place undo each other.
        layers: 0-based blocks.
        positions: in every prompt, or prompt → positions; None means all.
        site: `block_input`, `block_output`, `attention_output` or `mlp_output`.

    Raises:
        TaskError: the direction is no vector or not as wide as the stream, no layers, another site, or positions that
            are below 0 or not known.

    Example:
        >>> import torch
        >>> Steer(torch.ones(32), 2.0, layers=(1,)).sites
        ('block_output',)
    """

    name: ClassVar[str] = "steer"
    direction: Tensor = field(hash=False, compare=False)
    coefficient: float
    layers: tuple[int, ...]
    positions: Positions = field(default=None, hash=False)
    site: Site = "block_output"

    def __post_init__(self) -> None:
        check_place("steering", self.site, self.layers, self.positions)
        if self.direction.dim() != 1:
            raise TaskError("direction of steering", found=f"shape {tuple(self.direction.shape)}", expected="[M]")

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it acts."""
        return (self.site,)

    def stream(self, layer: int, site: Site, x: Tensor, tokens: Tokens | None) -> Tensor:
        """Return the stream with the direction added."""
        if layer not in self.layers:
            return x
        check_width("steering", self.direction, x)
        known = tokens or Tokens(None)
        here = chosen("steering", self.positions, known.positions, known.prompts)
        return written(x, x + self.coefficient * self.direction.to(x), here)
