"""Removing directions from the residual stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..core.errors import TaskError
from ._base import Edit
from ._direction import check_place, check_width
from ._tokens import Positions, Tokens, chosen, written

if TYPE_CHECKING:
    from ..models._base import Site


@dataclass(frozen=True)
class ProjectOut(Edit):
    """Take the residual stream's part along some directions away (directional ablation, 2406.11717).

    Attributes:
        directions: `[M]`, or `[k, M]` whose span is removed; their lengths do not matter.
        layers: 0-based blocks.
        positions: in every prompt, or prompt → positions; None means all.
        site: `block_input`, `block_output`, `attention_output` or `mlp_output`.

    Raises:
        TaskError: directions that are 0 or depend on each other, or not as wide as the stream, no layers, another
            site, or positions that are below 0 or not known.

    Example:
        >>> import torch
        >>> edit = ProjectOut(torch.tensor([2.0, 0.0]), layers=(0,))
        >>> edit.stream(0, "block_output", torch.tensor([[[3.0, 4.0]]]), None).tolist()
        [[[0.0, 4.0]]]
    """

    name: ClassVar[str] = "project_out"
    directions: Tensor = field(hash=False, compare=False)
    layers: tuple[int, ...]
    positions: Positions = field(default=None, hash=False)
    site: Site = "block_output"

    def __post_init__(self) -> None:
        check_place("removal of directions", self.site, self.layers, self.positions)
        given = self.directions.float().reshape(-1, self.directions.shape[-1])
        if self.directions.dim() > 2 or int(torch.linalg.matrix_rank(given)) < len(given):
            raise TaskError(
                "directions to remove",
                found=f"shape {tuple(self.directions.shape)}, rank {int(torch.linalg.matrix_rank(given))}",
                expected="one vector [M], or independent ones [k, M]",
            )

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it acts."""
        return (self.site,)

    def stream(self, layer: int, site: Site, x: Tensor, tokens: Tokens | None) -> Tensor:
        """Return the stream without the directions."""
        if layer not in self.layers:
            return x
        check_width("removal", self.directions, x)
        basis = torch.linalg.qr(self.directions.reshape(-1, x.shape[-1]).T.to(x.device, torch.float32)).Q
        known = tokens or Tokens(None)
        here = chosen("removal of directions", self.positions, known.positions, known.prompts)
        wide = x.float()
        return written(x, wide - (wide @ basis) @ basis.T, here)
