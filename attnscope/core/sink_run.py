"""A run of the sink report: sinks.json, sinks.html, sinks.parquet, statistics (zarr) and, last, the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .run_folder import Format, check_folder, open_folder, open_statistics, read_text, write_report
from .sink_report import AttentionEvidence, ResidualEvidence, Sink, SinkReport

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

SINK_FORMAT = Format("attnscope-sinks", 1, "attnscope sinks")


@dataclass(frozen=True)
class SinkRun:
    """A finished sink report on disk, read lazily; needs no torch."""

    path: Path

    @cached_property
    def report(self) -> SinkReport:
        """The sink report.

        Raises:
            ReportError: missing, corrupt or newer.
        """
        return SinkReport.from_json(read_text(self.path / "sinks.json"), str(self.path / "sinks.json"))

    @property
    def html(self) -> Path:
        """The self-contained page."""
        return self.path / "sinks.html"

    def statistics(self, name: str) -> xr.Dataset:
        """Return one dataset.

        Raises:
            ReportError: the run holds no such dataset, or its files are corrupt.
        """
        return open_statistics(self.path, name)


def open_sink_run(path: str | Path) -> SinkRun:
    """Open a finished sink report.

    Raises:
        ReportError: the folder is missing, holds another kind of run, or was written by a newer version.

    Example:
        >>> open_sink_run("runs/pocket-sinks").report.of_kind("secondary")   # doctest: +SKIP
    """
    return SinkRun(open_folder(path, SINK_FORMAT))


def check_sink_run(path: str | Path) -> Path:
    """Return the path if a sink report can be written there: absent, empty, or an earlier one.

    Raises:
        OutputError: it holds files that attnscope did not write, is a file, or cannot be written.
    """
    return check_folder(path, SINK_FORMAT)


def write_sink_run(
    path: str | Path, report: SinkReport, statistics: Mapping[str, xr.Dataset], page: str | Callable[[], str]
) -> SinkRun:
    """Write a sink report beside its place, then rename it there; the manifest is written last.

    Args:
        path: the run's folder; an earlier sink report there is replaced whole, and kept until the new one stands.
        report: the sink report.
        statistics: name → dataset.
        page: the HTML page, or what makes it.

    Raises:
        OutputError: see `check_sink_run`; or the disk refused.
    """
    return SinkRun(write_report(path, SINK_FORMAT, "sinks", report, sink_table(report), statistics, page))


def sink_table(report: SinkReport) -> pd.DataFrame:
    """Return one row a sink; what was not measured is missing (NaN, NA or None), never 0."""
    import pandas as pd

    table = pd.DataFrame([_row(sink) for sink in report.sinks], columns=list(_TYPES))
    return table.astype(_TYPES)


_TYPES = {
    "prompt": "int64",
    "position": "int64",
    "token": "string",
    "token_id": "int64",
    "kind": "string",
    "level": "Int64",
    "first_layer": "Int64",
    "lifetime": "Int64",
    "norm": "float64",
    "norm_ratio": "float64",
    "cosine": "float64",
    "writer": "string",
    "writer_layer": "Int64",
    "writer_share": "float64",
    "share": "float64",
    "share_layer": "Int64",
    "sink_heads": "float64",
}


def _row(sink: Sink) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(sink, name) for name in ("prompt", "position", "token_id", "kind", "level")}
    row["token"] = sink.token.encode("utf-8", "replace").decode("utf-8")
    if isinstance(sink.residual, ResidualEvidence):
        found = sink.residual
        row |= {name: getattr(found, name) for name in ("first_layer", "lifetime", "norm", "norm_ratio", "cosine")}
        if found.writer is not None:
            row |= {"writer": found.writer.module, "writer_layer": found.writer.layer}
            row["writer_share"] = found.writer.share
    if isinstance(sink.attention, AttentionEvidence):
        row |= {"share": sink.attention.share, "share_layer": sink.attention.layer}
        row["sink_heads"] = sink.attention.sink_heads
    return row
