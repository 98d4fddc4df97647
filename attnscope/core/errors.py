"""The one exception tree of attnscope."""

from __future__ import annotations

from attnscope_kernels.errors import (
    AttnscopeError,
    ContractError,
    ImplementationUnavailableError,
    KernelError,
)

__all__ = [
    "AttnscopeError",
    "ContractError",
    "CorruptModelError",
    "DependencyError",
    "DeviceError",
    "ImplementationUnavailableError",
    "InterruptedRunError",
    "KernelError",
    "ModelError",
    "ModelNotFoundError",
    "OutputError",
    "ReportError",
    "StatisticsError",
    "SweepError",
    "TapError",
    "TaskError",
    "UnknownHeadError",
    "UnknownNameError",
    "UnsupportedModelError",
]


class ModelError(AttnscopeError):
    """A model cannot be loaded or used."""


class ModelNotFoundError(ModelError):
    """No model stands at this folder or hub id."""


class CorruptModelError(ModelError):
    """A model's files are there but cannot be read."""


class UnsupportedModelError(ModelError):
    """The model's attention cannot be expressed as an AttentionCall, or lacks what was asked for."""


class TapError(ModelError):
    """The tap was not called as the model's layout promises."""


class DeviceError(AttnscopeError):
    """The device is unknown, absent or too small."""


class DependencyError(AttnscopeError):
    """An optional library is not installed; the message names the extra that brings it."""


class TaskError(AttnscopeError):
    """A prompt set cannot be built or used: no text, too short, too long, not UTF-8, missing columns."""


class StatisticsError(AttnscopeError):
    """Statistics lack a variable, a dimension or a unit, or two of them cannot be merged."""


class UnknownNameError(AttnscopeError):
    """No collector, edit, task, analysis, backend or format has this name."""


class UnknownHeadError(AttnscopeError):
    """The model has no such head, or the text does not name one."""


class OutputError(AttnscopeError):
    """An output place cannot be written, or holds files that attnscope did not write."""


class ReportError(AttnscopeError):
    """A run directory or report is missing, corrupt or written by a newer version."""


class SweepError(AttnscopeError):
    """One unit's run failed inside a sweep; the message names it, and what was done before is kept."""


class InterruptedRunError(AttnscopeError):
    """A run was interrupted; what was done is kept and the message says how to go on."""
