"""The contract between models and kernels: AttentionCall in, Want asked, Result out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .call import AttentionCall, Knockout
from .head_output import HeadOutput
from .want import Result, Screen, TopKeys, Want

__all__ = ["AttentionCall", "HeadOutput", "Knockout", "Result", "Screen", "Tap", "TopKeys", "Want"]

Tap = Callable[[AttentionCall], Tensor]
"""The one hook: takes an AttentionCall and returns z `[B, H, Tq, Dv]`, before the output projection."""
