"""Uniform attention: a head looks everywhere alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from attnscope_kernels import AttentionCall

from ..core.errors import UnknownHeadError
from ..core.ids import HeadId
from ._base import Edit, heads_of


@dataclass(frozen=True)
class UniformAttention(Edit):
    """Give every visible key the same weight in some query heads, as 2404.15574's code masks retrieval heads.

    The head still writes: the mean of the values that it sees. Zero ablation (`AblateHead`) silences it.

    Attributes:
        heads: query heads.

    Raises:
        UnknownHeadError: no head is named.

    Example:
        >>> UniformAttention((HeadId(3, 1),)).heads
        (L3H1,)
    """

    name: ClassVar[str] = "uniform_attention"
    heads: tuple[HeadId, ...]

    def __post_init__(self) -> None:
        if not self.heads:
            raise UnknownHeadError("uniform attention", found="no heads", expected="at least one")

    def call(self, call: AttentionCall) -> AttentionCall:
        """Take the chosen heads' queries and keys out of their logits."""
        chosen = heads_of(self.heads, call.layer)
        if not chosen:
            return call
        scale = torch.ones(call.q.shape[1], device=call.q.device) if call.logit_scale is None else call.logit_scale
        scale = scale.clone()
        scale[chosen] = 0.0
        return call.replace(logit_scale=scale)
