"""The one shape of an edit: before attention it may change the call, after it the heads' outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.ids import HeadId


@dataclass(frozen=True)
class Edit:
    """Base of every edit; a subclass's fields are its parameters. Edits compose in the order given."""

    name: ClassVar[str]

    def call(self, call: AttentionCall) -> AttentionCall:
        """Return the call that attention is computed from."""
        return call

    def output(self, call: AttentionCall, z: Tensor) -> Tensor:
        """Return the heads' outputs `[B, H, Tq, Dv]` that the output projection reads."""
        return z


def heads_of(heads: Iterable[HeadId], layer: int) -> list[int]:
    """Return the query heads of one layer."""
    return sorted(head.head for head in heads if head.layer == layer)
