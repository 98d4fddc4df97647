"""An edit that changes nothing and hands on what the heads give after all other edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import AttentionCall, attend

from ..edits._base import Attend, Edit


@dataclass(frozen=True)
class Keep(Edit):
    """Show every call and its final z `[B, H, Tq, Dv]` to a listener; stands after all other edits."""

    name: ClassVar[str] = "keep"
    listener: Callable[[AttentionCall, Tensor], None]

    def output(self, call: AttentionCall, z: Tensor, attend: Attend = attend) -> Tensor:
        """Show z, and give it back as it is."""
        self.listener(call, z)
        return z
