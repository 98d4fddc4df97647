"""Scaling: a head speaks louder or softer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attnscope_kernels import AttentionCall

from ..core.ids import HeadId
from ._base import Edit, edit_heads, heads_of


@dataclass(frozen=True)
class ScaleHead(Edit):
    """Multiply the output z of some query heads by a factor.

    Attributes:
        heads: query heads.
        factor: 0 ablates, 1 changes nothing.

    Example:
        >>> ScaleHead((HeadId(0, 2),), 0.5).factor
        0.5
    """

    name: ClassVar[str] = "scale_head"
    heads: tuple[HeadId, ...]
    factor: float

    def call(self, call: AttentionCall) -> AttentionCall:
        """Scale the chosen heads' outputs."""
        chosen = heads_of(self.heads, call.layer)
        return edit_heads(call, chosen, self.factor) if chosen else call
