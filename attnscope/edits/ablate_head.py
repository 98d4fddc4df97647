"""Ablation: a head stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.errors import UnknownHeadError
from ..core.ids import HeadId
from ._base import Edit, edit_heads_at, heads_of
from ._positions import queries_at
from ._tokens import Positions, check_positions


@dataclass(frozen=True)
class AblateHead(Edit):
    """Replace the output z of some query heads, by zero or by a mean.

    Zero ablation equals zeroing the heads' columns of W_O (1905.10650).

    Attributes:
        heads: the query heads that stop.
        means: layer → `[H, Dv]` mean outputs over a reference set (mean ablation); None means zero ablation.
        positions: in every prompt, or prompt → positions, counted from its first token; None means all.

    Raises:
        UnknownHeadError: no head is named, or a mean is missing for a layer.
        TaskError: positions below 0, or, in use, positions of single prompts where the prompts are not known.

    Example:
        >>> AblateHead((HeadId(1, 0),)).heads
        (L1H0,)
    """

    name: ClassVar[str] = "ablate_head"
    heads: tuple[HeadId, ...]
    means: Mapping[int, Tensor] | None = field(default=None, hash=False)
    positions: Positions = field(default=None, hash=False)
    _prompts: tuple[int, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.heads:
            raise UnknownHeadError("ablation", found="no heads", expected="at least one")
        check_positions("ablation", self.positions)
        lacking = {head.layer for head in self.heads} - set(self.means) if self.means is not None else set()
        if lacking:
            raise UnknownHeadError("mean ablation", found=f"no means for layers {sorted(lacking)}", expected="[H, Dv]")

    def call(self, call: AttentionCall) -> AttentionCall:
        """Stop the chosen heads, and give their means in place of them."""
        chosen = heads_of(self.heads, call.layer)
        if not chosen:
            return call
        means = None if self.means is None else self.means[call.layer][chosen].to(call.v)[None, :, None]
        here = queries_at("ablation", call, self.positions, self._prompts)
        return edit_heads_at(call, chosen, 0.0, means, here)
