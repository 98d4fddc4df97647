"""The report of trained gates, and its run folder: gates.json, statistics (zarr) and, last, the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from .model_info import ModelInfo
from .report import Provenance, read_json
from .run_folder import Format, check_folder, open_folder, open_statistics, read_text, write_folder

if TYPE_CHECKING:
    import xarray as xr

GATE_FORMAT = Format("attnscope-gates", 1, "attnscope gates")
GATE_SCHEMA_VERSION: Literal[1] = 1
STATISTICS = {"duo_attention": "duo_gates", "hardkuma": "hardkuma_gates"}
"""Name of each method's statistics in a run folder."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeptAccuracy(_Frozen):
    """Answer accuracy with the KV heads of the largest gates full and all others streaming."""

    budget: float = Field(description="share of KV heads that stay full")
    full_heads: int
    accuracy: float
    controls: tuple[float, ...] = Field(description="the same with as many random heads")
    controls_exclude_chosen: bool


class GateReport(_Frozen):
    """Trained gates of one model; `[layer, KV head]` values are also in the statistics, with everything else.

    Example:
        >>> open_gate_run("runs/pocket-gates").report.gates[0]  # doctest: +SKIP
        (0.0, 0.13, 0.0, 0.02)
    """

    schema_version: Literal[1] = GATE_SCHEMA_VERSION
    model: ModelInfo
    method: Literal["duo_attention", "hardkuma"]
    source: str = Field(description="arXiv id")
    settings: dict[str, float | int | str]
    gate: str = Field(description="what `gates` holds, a variable of the statistics")
    gates: tuple[tuple[float, ...], ...] = Field(description="one row a layer with attention, one number a KV head")
    kv_reduction: str
    read_site: str
    final_losses: dict[str, float] = Field(description="means over the last steps, one for each prompt")
    answer_accuracy: float = Field(description="share of answer tokens that the full model predicts")
    full_accuracy: float | None = Field(default=None, description="of the full model on the held-out needles")
    kept: tuple[KeptAccuracy, ...] = ()
    provenance: Provenance

    def to_json(self) -> str:
        """Return the report as JSON text; `GateReport.from_json` reads the identical report back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "gate report") -> GateReport:
        """Read a report.

        Raises:
            ReportError: not JSON, not a gate report, or written by a newer version.
        """
        return read_json(cls, text, where, "a gate report", GATE_SCHEMA_VERSION)


@dataclass(frozen=True)
class GateRun:
    """Finished gates on disk, read lazily; needs no torch."""

    path: Path

    @cached_property
    def report(self) -> GateReport:
        """The report.

        Raises:
            ReportError: missing, corrupt or newer.
        """
        return GateReport.from_json(read_text(self.path / "gates.json"), str(self.path / "gates.json"))

    def statistics(self, name: str | None = None) -> xr.Dataset:
        """Return the gates, `duo_gates` or `hardkuma_gates`; None takes the one that the run holds.

        Raises:
            ReportError: the run holds no such dataset, or its files are corrupt.
        """
        return open_statistics(self.path, STATISTICS[self.report.method] if name is None else name)


def open_gate_run(path: str | Path) -> GateRun:
    """Open finished gates.

    Raises:
        ReportError: the folder is missing, holds another kind of run, or was written by a newer version.

    Example:
        >>> open_gate_run("runs/pocket-gates").statistics()["duo_gate"]  # doctest: +SKIP
    """
    return GateRun(open_folder(path, GATE_FORMAT))


def check_gate_run(path: str | Path) -> Path:
    """Return the path if gates can be written there: absent, empty, or earlier gates.

    Raises:
        OutputError: it holds files that attnscope did not write, is a file, or cannot be written.
    """
    return check_folder(path, GATE_FORMAT)


def write_gate_run(path: str | Path, report: GateReport, statistics: xr.Dataset) -> GateRun:
    """Write gates beside their place, then rename them there; the manifest is written last.

    Raises:
        OutputError: see `check_gate_run`; or the disk refused.
    """

    def fill(folder: Path) -> None:
        (folder / "gates.json").write_text(report.to_json(), encoding="utf-8")

    named = {STATISTICS[report.method]: statistics}
    return GateRun(write_folder(path, GATE_FORMAT, fill, named, report.model, report.provenance))
