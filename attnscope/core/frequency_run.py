"""A run of the frequency report: frequency.json, frequency.html, statistics (zarr) and, last, the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .frequency_report import FrequencyReport
from .run_folder import Format, check_folder, open_folder, open_statistics, read_text, write_folder

if TYPE_CHECKING:
    import xarray as xr

FREQUENCY_FORMAT = Format("attnscope-frequency", 1, "attnscope frequency")


@dataclass(frozen=True)
class FrequencyRun:
    """A finished frequency report on disk, read lazily; needs no torch."""

    path: Path

    @cached_property
    def report(self) -> FrequencyReport:
        """The frequency report.

        Raises:
            ReportError: missing, corrupt or newer.
        """
        where = self.path / "frequency.json"
        return FrequencyReport.from_json(read_text(where), str(where))

    @property
    def html(self) -> Path:
        """The self-contained page."""
        return self.path / "frequency.html"

    def statistics(self, name: str = "frequency") -> xr.Dataset:
        """Return one dataset: `frequency` by head, `agreement` and `compound` by prompt.

        Raises:
            ReportError: the run holds no such dataset, or its files are corrupt.
        """
        return open_statistics(self.path, name)


def open_frequency_run(path: str | Path) -> FrequencyRun:
    """Open a finished frequency report.

    Raises:
        ReportError: the folder is missing, holds another kind of run, or was written by a newer version.

    Example:
        >>> open_frequency_run("runs/pocket-frequency").report.pairing   # doctest: +SKIP
        'rotate_half'
    """
    return FrequencyRun(open_folder(path, FREQUENCY_FORMAT))


def check_frequency_run(path: str | Path) -> Path:
    """Return the path if a frequency report can be written there: absent, empty, or an earlier one.

    Raises:
        OutputError: it holds files that attnscope did not write, is a file, or cannot be written.
    """
    return check_folder(path, FREQUENCY_FORMAT)


def write_frequency_run(
    path: str | Path, report: FrequencyReport, statistics: Mapping[str, xr.Dataset], page: str | Callable[[], str]
) -> FrequencyRun:
    """Write a frequency report beside its place, then rename it there; the manifest is written last.

    Args:
        path: the run's folder; an earlier frequency report there is replaced whole, and kept until the new one stands.
        report: the frequency report.
        statistics: name → dataset.
        page: the HTML page, or what makes it.

    Raises:
        OutputError: see `check_frequency_run`; or the disk refused.
    """

    def fill(folder: Path) -> None:
        (folder / "frequency.json").write_text(report.to_json(), encoding="utf-8")
        (folder / "frequency.html").write_text(page if isinstance(page, str) else page(), encoding="utf-8")

    return FrequencyRun(write_folder(path, FREQUENCY_FORMAT, fill, statistics, report.model, report.provenance))
