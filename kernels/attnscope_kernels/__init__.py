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

_HOME = {
    "AttentionCall": "contract",
    "HeadOutput": "contract",
    "Knockout": "contract",
    "Result": "contract",
    "Screen": "contract",
    "Tap": "contract",
    "TopKeys": "contract",
    "Want": "contract",
    "attend": "api",
    "attention_tile": "api",
    "available": "api",
    "choose": "api",
}
__all__ = [
    "AttentionCall",
    "HeadOutput",
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
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
