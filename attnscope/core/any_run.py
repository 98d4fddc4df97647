"""Opening a finished run of whatever kind: head report, sinks, retrieval, frequency chunks, gates, circuits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .circuit_run import CIRCUIT_FORMAT, open_circuit_run
from .errors import ReportError
from .frequency_run import FREQUENCY_FORMAT, open_frequency_run
from .gate_report import GATE_FORMAT, open_gate_run
from .retrieval_run import RETRIEVAL_FORMAT, open_retrieval_run
from .run_directory import FORMAT, open_run
from .run_folder import MANIFEST, Format
from .sink_run import SINK_FORMAT, open_sink_run

if TYPE_CHECKING:
    import xarray as xr

    from .model_info import ModelInfo
    from .report import Provenance


class AnyReport(Protocol):
    """What every report says."""

    @property
    def model(self) -> ModelInfo:
        """The model."""
        ...

    @property
    def provenance(self) -> Provenance:
        """How it was made."""
        ...


class AnyRun(Protocol):
    """What every run holds."""

    @property
    def path(self) -> Path:
        """Its folder."""
        ...

    @property
    def report(self) -> Any:
        """An `AnyReport`."""
        ...

    def statistics(self, name: str, /) -> xr.Dataset:
        """Return one dataset."""
        ...


OPENERS: tuple[tuple[Format, Callable[[Path], AnyRun]], ...] = (
    (FORMAT, open_run),
    (SINK_FORMAT, open_sink_run),
    (RETRIEVAL_FORMAT, open_retrieval_run),
    (FREQUENCY_FORMAT, open_frequency_run),
    (GATE_FORMAT, open_gate_run),
    (CIRCUIT_FORMAT, open_circuit_run),
)


def open_any_run(path: str | Path) -> AnyRun:
    """Open a finished run by what its manifest says.

    Raises:
        ReportError: the folder is missing, holds no manifest of ours, or was written by a newer version.

    Example:
        >>> open_any_run("runs/pocket-retrieval").report.model.model_id  # doctest: +SKIP
        'pocket'
    """
    folder = Path(path)
    try:
        name = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return open_run(folder)  # which says what is wrong
    for form, opened in OPENERS:
        if form.name == name:
            return opened(folder)
    known = ", ".join(form.name for form, _ in OPENERS)
    raise ReportError(f"{folder / MANIFEST}", found=f"format {name!r}", expected=f"one of {known}")
