"""A run of the retrieval report: retrieval.json, retrieval.html, retrieval.parquet, statistics (zarr), the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .ids import HeadId
from .retrieval_report import RetrievalHead, RetrievalReport
from .run_folder import Format, check_folder, open_folder, open_statistics, read_text, write_report
from .sink_report import Estimate

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

RETRIEVAL_FORMAT = Format("attnscope-retrieval", 1, "attnscope retrieval")
MEASURES = (
    "retrieval",
    "retrieval_decoded",
    "qr_score",
    "razor_echo",
    "razor_induction",
    "vertical_slash_mass",
)
"""Measurements of core.retrieval_report.RetrievalHead, in reading order."""


@dataclass(frozen=True)
class RetrievalRun:
    """A finished retrieval report on disk, read lazily; needs no torch."""

    path: Path

    @cached_property
    def report(self) -> RetrievalReport:
        """The retrieval report.

        Raises:
            ReportError: missing, corrupt or newer.
        """
        place = self.path / "retrieval.json"
        return RetrievalReport.from_json(read_text(place), str(place))

    @property
    def html(self) -> Path:
        """The self-contained page."""
        return self.path / "retrieval.html"

    def statistics(self, name: str) -> xr.Dataset:
        """Return one dataset.

        Raises:
            ReportError: the run holds no such dataset, or its files are corrupt.
        """
        return open_statistics(self.path, name)


def open_retrieval_run(path: str | Path) -> RetrievalRun:
    """Open a finished retrieval report.

    Raises:
        ReportError: the folder is missing, holds another kind of run, or was written by a newer version.

    Example:
        >>> open_retrieval_run("runs/pocket-retrieval").report.ranking[:3]   # doctest: +SKIP
    """
    return RetrievalRun(open_folder(path, RETRIEVAL_FORMAT))


def check_retrieval_run(path: str | Path) -> Path:
    """Return the path if a retrieval report can be written there: absent, empty, or an earlier one.

    Raises:
        OutputError: it holds files that attnscope did not write, is a file, or cannot be written.
    """
    return check_folder(path, RETRIEVAL_FORMAT)


def write_retrieval_run(
    path: str | Path, report: RetrievalReport, statistics: Mapping[str, xr.Dataset], page: str | Callable[[], str]
) -> RetrievalRun:
    """Write a retrieval report beside its place, then rename it there; the manifest is written last.

    Args:
        path: the run's folder; an earlier retrieval report there is replaced whole, and kept until the new one stands.
        report: the retrieval report.
        statistics: name → dataset.
        page: the HTML page, or what makes it.

    Raises:
        OutputError: see `check_retrieval_run`; or the disk refused.
    """
    table = retrieval_table(report)
    return RetrievalRun(write_report(path, RETRIEVAL_FORMAT, "retrieval", report, table, statistics, page))


def retrieval_table(report: RetrievalReport) -> pd.DataFrame:
    """Return one row a query head: every measure with its interval and n; what was not measured is NaN or NA, never 0.

    Columns of a measure: `retrieval`, `retrieval_low`, `retrieval_high`, `retrieval_n`.
    """
    import pandas as pd

    types = {"layer": "int64", "head": "int64", "kv_head": "int64", "name": "string"}
    for measure in MEASURES:
        types |= {
            measure: "float64",
            f"{measure}_low": "float64",
            f"{measure}_high": "float64",
            f"{measure}_n": "Int64",
        }
    types |= {"vertical_size": "Int64", "slash_size": "Int64"}
    return pd.DataFrame([_row(head) for head in report.heads], columns=list(types)).astype(types)


def _row(head: RetrievalHead) -> dict[str, object]:
    row: dict[str, object] = {
        "layer": head.layer,
        "head": head.head,
        "kv_head": head.kv_head,
        "name": str(HeadId(head.layer, head.head)),
        "vertical_size": head.vertical_size,
        "slash_size": head.slash_size,
    }
    for measure in MEASURES:
        item = getattr(head, measure)
        if isinstance(item, Estimate):
            row |= {measure: item.value, f"{measure}_n": item.n}
            if item.interval is not None:
                row |= {f"{measure}_low": item.interval.low, f"{measure}_high": item.interval.high}
    return row
