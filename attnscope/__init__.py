"""attnscope: what every attention head of a transformer does, and what happens when it stops.

Nothing heavy is imported until it is used: a finished run opens without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .core.errors import AttnscopeError
    from .core.ids import HeadId
    from .core.model_info import ModelInfo
    from .core.report import HeadReport
    from .core.run_directory import open_run
    from .engine.collect import collect
    from .models._loading import load
    from .workflow import report

_HOME = {
    "AttnscopeError": ".core.errors",
    "HeadId": ".core.ids",
    "HeadReport": ".core.report",
    "ModelInfo": ".core.model_info",
    "collect": ".engine.collect",
    "load": ".models._loading",
    "open_run": ".core.run_directory",
    "report": ".workflow",
}
__all__ = [
    "AttnscopeError",
    "HeadId",
    "HeadReport",
    "ModelInfo",
    "__version__",
    "collect",
    "load",
    "open_run",
    "report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
