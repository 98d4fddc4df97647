"""Ablation: a head stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.errors import UnknownHeadError
from ..core.ids import HeadId
from ._base import Edit, edit_heads, heads_of


@dataclass(frozen=True)
class AblateHead(Edit):
    """Replace the output z of some query heads, by zero or by a mean.

    Zero ablation equals zeroing the heads' columns of W_O (1905.10650).

    Attributes:
        heads: the query heads that stop.
        means: layer → `[H, Dv]` mean outputs over a reference set (mean ablation); None means zero ablation.

    Raises:
        UnknownHeadError: no head is named, or a mean is missing for a layer.

    Example:
        >>> AblateHead((HeadId(1, 0),)).heads
        (L1H0,)
    """

    name: ClassVar[str] = "ablate_head"
    heads: tuple[HeadId, ...]
    means: Mapping[int, Tensor] | None = None

    def __post_init__(self) -> None:
        if not self.heads:
            raise UnknownHeadError("ablation", found="no heads", expected="at least one")
        lacking = {head.layer for head in self.heads} - set(self.means) if self.means is not None else set()
        if lacking:
            raise UnknownHeadError("mean ablation", found=f"no means for layers {sorted(lacking)}", expected="[H, Dv]")

    def call(self, call: AttentionCall) -> AttentionCall:
        """Stop the chosen heads, and give their means in place of them."""
        chosen = heads_of(self.heads, call.layer)
        if not chosen:
            return call
        means = None if self.means is None else self.means[call.layer][chosen].to(call.v)[None, :, None]
        return edit_heads(call, chosen, 0.0, means)
