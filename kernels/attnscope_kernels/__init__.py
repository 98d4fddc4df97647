"""Streaming attention statistics: one contract, several implementations, no T×T matrix outside `reference`.

Importable alone: this package needs torch (and, for one implementation, triton) and nothing else of attnscope.
Nothing is imported until it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import attend, attention_tile, available, choose
    from .contract import AttentionCall, HeadOutput, Knockout, Result, Screen, Tap, TopKeys, Want
    from .errors import ContractError, ImplementationUnavailableError, KernelError, KernelMemoryError
    from .frequency import contextual_agreement
    from .residual import residual_statistics

_HOME = {
    "AttentionCall": "contract",
    "HeadOutput": "contract",
    "Knockout": "contract",
    "Result": "contract",
    "Screen": "contract",
    "Tap": "contract",
    "TopKeys": "contract",
    "Want": "contract",
    "ContractError": "errors",
    "ImplementationUnavailableError": "errors",
    "KernelError": "errors",
    "KernelMemoryError": "errors",
    "attend": "api",
    "attention_tile": "api",
    "available": "api",
    "choose": "api",
    "contextual_agreement": "frequency",
    "residual_statistics": "residual",
}
__all__ = [
    "AttentionCall",
    "ContractError",
    "HeadOutput",
    "ImplementationUnavailableError",
    "KernelError",
    "KernelMemoryError",
    "Knockout",
    "Result",
    "Screen",
    "Tap",
    "TopKeys",
    "Want",
    "attend",
    "attention_tile",
    "available",
    "choose",
    "contextual_agreement",
    "residual_statistics",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
