"""A run directory: statistics (zarr), heads (parquet, csv), report (json, html) and, last, the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .frequency_report import FrequencyReport
from .report import HeadReport
from .retrieval_report import RetrievalReport
from .run_folder import Format, check_folder, open_folder, open_statistics, read_text, write_folder
from .sink_report import SinkReport

if TYPE_CHECKING:
    import xarray as xr

FORMAT = Format("attnscope-run", 1, "attnscope report")


@dataclass(frozen=True)
class RunDirectory:
    """A finished run on disk, read lazily; needs no torch."""

    path: Path

    @cached_property
    def report(self) -> HeadReport:
        """The head report.

        Raises:
            ReportError: missing, corrupt or newer.
        """
        return HeadReport.from_json(read_text(self.path / "report.json"), str(self.path / "report.json"))

    @property
    def html(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"

    @cached_property
    def sinks(self) -> SinkReport:
        """The sink report of the text prompts.

        Raises:
            ReportError: the run holds none (it was made with --no-sinks, a long context or a screen), or it is corrupt.
        """
        return SinkReport.from_json(read_text(self.path / "sinks.json"), str(self.path / "sinks.json"))

    @cached_property
    def retrieval(self) -> RetrievalReport:
        """The retrieval report.

        Raises:
            ReportError: the run holds none (--no-retrieval, or a model without a tokenizer), or it is corrupt.
        """
        where = self.path / "retrieval.json"
        return RetrievalReport.from_json(read_text(where), str(where))

    @cached_property
    def frequency(self) -> FrequencyReport:
        """The report of frequency chunks.

        Raises:
            ReportError: the run holds none (--no-frequency, or a model without RoPE), or it is corrupt.
        """
        where = self.path / "frequency.json"
        return FrequencyReport.from_json(read_text(where), str(where))

    def statistics(self, prompt_set: str) -> xr.Dataset:
        """Return the statistics of one prompt set.

        Raises:
            ReportError: the run holds no such prompt set, or its files are corrupt.
        """
        return open_statistics(self.path, prompt_set)


def open_run(path: str | Path) -> RunDirectory:
    """Open a finished run.

    Raises:
        ReportError: the folder is missing, holds no manifest, or was written by a newer version.

    Example:
        >>> open_run("runs/pocket").report.heads.head()   # doctest: +SKIP
    """
    return RunDirectory(open_folder(path, FORMAT))


def check_writable(path: str | Path) -> Path:
    """Return the path if a run can be written there: absent, empty, or an earlier run (which is replaced whole).

    Raises:
        OutputError: it holds files that attnscope did not write, is a file, or cannot be written.
    """
    return check_folder(path, FORMAT)


def write_run(
    path: str | Path,
    report: HeadReport,
    statistics: Mapping[str, xr.Dataset],
    pages: Mapping[str, str | Callable[[], str]],
) -> RunDirectory:
    """Write a run beside its place, then rename it there; the manifest is written last.

    Args:
        path: the run's folder; an earlier run there is replaced whole, and kept until the new one stands.
        report: the head report.
        statistics: prompt set name → dataset.
        pages: further text files by name, for example `{"report.html": text}`.

    Raises:
        OutputError: see `check_writable`; or the disk refused.
    """

    def fill(folder: Path) -> None:
        report.heads.to_parquet(folder / "heads.parquet", index=False)
        report.heads.to_csv(folder / "heads.csv", index=False)
        (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
        for name, text in pages.items():
            (folder / name).write_text(text if isinstance(text, str) else text(), encoding="utf-8")

    return RunDirectory(write_folder(path, FORMAT, fill, statistics, report.model, report.provenance))
