"""Scaling: a head speaks louder or softer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from attnscope_kernels import AttentionCall

from ..core.ids import HeadId
from ._base import Edit, edit_heads_at, heads_of
from ._positions import queries_at
from ._tokens import Positions, check_positions


@dataclass(frozen=True)
class ScaleHead(Edit):
    """Multiply the output z of some query heads by a factor.

    Attributes:
        heads: query heads.
        factor: 0 ablates, 1 changes nothing.
        positions: in every prompt, or prompt → positions, counted from its first token; None means all.

    Raises:
        TaskError: positions below 0, or, in use, positions of single prompts where the prompts are not known.

    Example:
        >>> ScaleHead((HeadId(0, 2),), 0.5).factor
        0.5
    """

    name: ClassVar[str] = "scale_head"
    heads: tuple[HeadId, ...]
    factor: float
    positions: Positions = field(default=None, hash=False)
    _prompts: tuple[int, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positions("scaling", self.positions)

    def call(self, call: AttentionCall) -> AttentionCall:
        """Scale the chosen heads' outputs."""
        chosen = heads_of(self.heads, call.layer)
        if not chosen:
            return call
        here = queries_at("scaling", call, self.positions, self._prompts)
        return edit_heads_at(call, chosen, self.factor, None, here)
