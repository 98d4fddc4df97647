"""A run of the circuit report: circuits.json, circuits.html, circuits.parquet, statistics (zarr), the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .circuit_report import CircuitReport, LevelResult, UnitDrop, UnitEffect
from .run_folder import Format, check_folder, open_folder, open_statistics, read_text, write_report

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

CIRCUIT_FORMAT = Format("attnscope-circuits", 1, "attnscope circuit")
_TYPES = {
    "level": "string",
    "unit": "string",
    "module": "string",
    "layer": "int64",
    "index": "int64",
    "task": "string",
    "effect": "float64",
    "low": "float64",
    "high": "float64",
    "n": "Int64",
    "p": "float64",
    "q": "float64",
    "screened": "float64",
    "circuits": "string",
}


@dataclass(frozen=True)
class CircuitRun:
    """A finished circuit report on disk, read lazily; needs no torch."""

    path: Path

    @cached_property
    def report(self) -> CircuitReport:
        """The circuit report.

        Raises:
            ReportError: missing, corrupt or newer.
        """
        place = self.path / "circuits.json"
        return CircuitReport.from_json(read_text(place), str(place))

    @property
    def html(self) -> Path:
        """The self-contained page."""
        return self.path / "circuits.html"

    def statistics(self, name: str) -> xr.Dataset:
        """Return one dataset.

        Raises:
            ReportError: the run holds no such dataset, or its files are corrupt.
        """
        return open_statistics(self.path, name)


def open_circuit_run(path: str | Path) -> CircuitRun:
    """Open a finished circuit report.

    Raises:
        ReportError: the folder is missing, holds another kind of run, or was written by a newer version.

    Example:
        >>> open_circuit_run("runs/pocket-circuits").report.dissociations[0].verdict   # doctest: +SKIP
        'double'
    """
    return CircuitRun(open_folder(path, CIRCUIT_FORMAT))


def check_circuit_run(path: str | Path) -> Path:
    """Return the path if a circuit report can be written there: absent, empty, or an earlier one.

    Raises:
        OutputError: it holds files that attnscope did not write, is a file, or cannot be written.
    """
    return check_folder(path, CIRCUIT_FORMAT)


def write_circuit_run(
    path: str | Path, report: CircuitReport, statistics: Mapping[str, xr.Dataset], page: str | Callable[[], str]
) -> CircuitRun:
    """Write a circuit report beside its place, then rename it there; the manifest is written last.

    Args:
        path: the run's folder; an earlier circuit report there is replaced whole, and kept until the new one stands.
        report: the circuit report.
        statistics: name → dataset.
        page: the HTML page, or what makes it.

    Raises:
        OutputError: see `check_circuit_run`; or the disk refused.
    """
    table = circuit_table(report)
    return CircuitRun(write_report(path, CIRCUIT_FORMAT, "circuits", report, table, statistics, page))


def circuit_table(report: CircuitReport) -> pd.DataFrame:
    """Return one row a unit and task; what was not measured is missing (NaN or NA), never 0.

    `circuits` names the tasks for which the unit was chosen, at the largest size.
    """
    import pandas as pd

    chosen: dict[tuple[str, str], list[str]] = {}
    for circuit in report.circuits:
        for unit in circuit.units:
            names = chosen.setdefault((circuit.level, unit), [])
            if circuit.task not in names:
                names.append(circuit.task)
    rows = [
        _row(level, unit, task.name, chosen)
        for level in report.levels
        for unit in level.units
        for task in report.tasks
        if task.name in unit.effects or task.name in unit.screened
    ]
    return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


def _row(
    level: LevelResult, unit: UnitEffect, task: str, chosen: Mapping[tuple[str, str], list[str]]
) -> dict[str, object]:
    return dict(_cells(level, unit, task)) | {"circuits": ",".join(chosen.get((level.level, unit.unit), []))}


def _cells(level: LevelResult, unit: UnitEffect, task: str) -> Iterator[tuple[str, object]]:
    yield from (("level", level.level), ("unit", unit.unit), ("module", unit.module))
    yield from (("layer", unit.layer), ("index", unit.index), ("task", task))
    yield "screened", unit.screened.get(task)
    item = unit.effects.get(task)
    if isinstance(item, UnitDrop):
        yield from (("effect", item.value), ("n", item.n), ("p", item.p), ("q", item.q))
        if item.interval is not None:
            yield from (("low", item.interval.low), ("high", item.interval.high))
