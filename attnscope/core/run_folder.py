"""What every run folder shares: written beside its place and renamed, manifest last, foreign files refused."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .errors import OutputError, ReportError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from .model_info import ModelInfo
    from .report import Provenance

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Format:
    """One kind of run folder: its name in the manifest, its version, and the command that makes it."""

    name: str
    version: int
    command: str


class Writable(Protocol):
    """A report that a run folder can hold."""

    @property
    def model(self) -> ModelInfo:
        """What was measured."""

    @property
    def provenance(self) -> Provenance:
        """How."""

    def to_json(self) -> str:
        """Return the report as JSON text."""


def open_folder(path: str | Path, form: Format) -> Path:
    """Return the folder of a finished run.

    Raises:
        ReportError: the folder is missing, holds no manifest of this format, or was written by a newer version.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ReportError(f"run {folder}", found="no such folder", expected=f"a folder made by {form.command!r}")
    try:
        manifest = json.loads(read_text(folder / MANIFEST))
    except ValueError as error:
        raise ReportError(f"{folder / MANIFEST}", found=f"no JSON ({error})", expected="a manifest") from error
    if not isinstance(manifest, dict) or manifest.get("format") != form.name:
        raise ReportError(
            f"{folder / MANIFEST}",
            found="another format",
            expected=f"format {form.name!r}, as {form.command!r} writes it",
        )
    version = manifest.get("version", 0)
    if not isinstance(version, int):
        raise ReportError(f"{folder / MANIFEST}", found=f"version {version!r}", expected="a number")
    if version > form.version:
        raise ReportError(
            f"run {folder}",
            found=f"version {version}",
            expected=f"at most {form.version}",
            fix="Upgrade attnscope to read it.",
        )
    return folder


def open_statistics(folder: Path, name: str) -> xr.Dataset:
    """Return one dataset of a run, read whole.

    Raises:
        ReportError: the run holds no such dataset, or its files are corrupt.
    """
    import xarray as xr

    store = folder / "statistics" / f"{name}.zarr"
    if not store.is_dir():
        held = sorted(p.stem for p in (folder / "statistics").glob("*.zarr"))
        raise ReportError(f"statistics of {name!r} in {folder}", found=held, expected="one of these")
    try:
        return xr.open_zarr(store, consolidated=False, chunks=None).load()
    except (ValueError, KeyError, OSError) as error:
        raise ReportError(f"statistics {store}", found=f"unreadable: {error}", expected="a zarr store") from error


def check_folder(path: str | Path, form: Format) -> Path:
    """Return the path if a run can be written there: absent, empty, or an earlier run (which is replaced whole).

    Raises:
        OutputError: it holds files that attnscope did not write, is a file, or cannot be written.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output {folder}", found="a file", expected="a folder, or nothing")
    foreign = _foreign_files(folder, form) if folder.is_dir() else []
    if foreign:
        raise OutputError(
            f"output {folder}",
            found=f"files that attnscope did not write ({', '.join(foreign[:3])}{', …' if len(foreign) > 3 else ''})",
            expected="an empty folder or an earlier run",
            fix="Choose another --out; nothing was changed.",
        )
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".attnscope-", dir=nearest):
            pass
    except OSError as error:
        raise OutputError(
            f"output {folder}", found=f"{nearest}: {error.strerror}", expected="a writable place"
        ) from error
    return folder


def write_folder(
    path: str | Path,
    form: Format,
    fill: Callable[[Path], None],
    statistics: Mapping[str, xr.Dataset],
    model: ModelInfo,
    provenance: Provenance,
) -> Path:
    """Write a run beside its place, then rename it there; the manifest is written last.

    Args:
        path: the run's folder; an earlier run there is replaced whole, and kept until the new one stands.
        form: kind of run folder.
        fill: writes every file but the statistics and the manifest into the folder that it is given.
        statistics: name → dataset.
        model: recorded in the manifest.
        provenance: recorded in the manifest.

    Raises:
        OutputError: see `check_folder`; or the disk refused.
    """
    folder = check_folder(path, form)
    token = uuid.uuid4().hex[:8]
    fresh = folder.parent / f".{folder.name}.{token}.new"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        for name, data in statistics.items():
            data.to_zarr(fresh / "statistics" / f"{name}.zarr", mode="w", zarr_format=2, consolidated=False)
        fill(fresh)
        manifest = {
            "format": form.name,
            "version": form.version,
            "model": model.model_id,
            "created": provenance.created,
            "attnscope": provenance.attnscope_version,
            "files": sorted(str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_file()),
        }
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        _swap(fresh, folder, folder.parent / f".{folder.name}.{token}.old")
    except OSError as error:
        raise OutputError(f"output {folder}", found=str(error), expected="a writable place") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def write_report(
    path: str | Path,
    form: Format,
    name: str,
    report: Writable,
    table: pd.DataFrame,
    statistics: Mapping[str, xr.Dataset],
    page: str | Callable[[], str],
) -> Path:
    """Write a run of NAME.json, NAME.html, NAME.parquet and statistics; see `write_folder`.

    Args:
        path: the run's folder.
        form: kind of run folder.
        name: of the files.
        report: becomes the JSON.
        table: becomes the parquet file.
        statistics: name → dataset.
        page: the HTML page, or what makes it.

    Raises:
        OutputError: see `check_folder`; or the disk refused.
    """

    def fill(folder: Path) -> None:
        table.to_parquet(folder / f"{name}.parquet", index=False)
        (folder / f"{name}.json").write_text(report.to_json(), encoding="utf-8")
        (folder / f"{name}.html").write_text(page if isinstance(page, str) else page(), encoding="utf-8")

    return write_folder(path, form, fill, statistics, report.model, report.provenance)


def _swap(fresh: Path, folder: Path, aside: Path) -> None:
    if folder.exists():
        folder.rename(aside)
    try:
        fresh.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _foreign_files(folder: Path, form: Format) -> list[str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        ours = {*manifest["files"], MANIFEST} if manifest["format"] == form.name else set()
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    held = (str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in held if name not in ours)


def read_text(path: Path) -> str:
    """Return a file of a run.

    Raises:
        ReportError: missing or unreadable.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ReportError(str(path), found="no such file", expected="a finished run") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(str(path), found=f"unreadable: {error}", expected="a finished run") from error
