"""A run directory: statistics (zarr), heads (parquet, csv), report (json, html) and, last, the manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OutputError, ReportError
from .report import HeadReport

if TYPE_CHECKING:
    import xarray as xr

MANIFEST = "manifest.json"
FORMAT = "attnscope-run"
VERSION = 1


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
        return HeadReport.from_json(_read(self.path / "report.json"), str(self.path / "report.json"))

    @property
    def html(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"

    def statistics(self, prompt_set: str) -> xr.Dataset:
        """Return the statistics of one prompt set.

        Raises:
            ReportError: the run holds no such prompt set, or its files are corrupt.
        """
        import xarray as xr

        folder = self.path / "statistics" / f"{prompt_set}.zarr"
        if not folder.is_dir():
            held = sorted(p.stem for p in (self.path / "statistics").glob("*.zarr"))
            raise ReportError(f"statistics of {prompt_set!r} in {self.path}", found=held, expected="one of these")
        try:
            return xr.open_zarr(folder, consolidated=False, chunks=None).load()
        except (ValueError, KeyError, OSError) as error:
            raise ReportError(f"statistics {folder}", found=f"unreadable: {error}", expected="a zarr store") from error


def open_run(path: str | Path) -> RunDirectory:
    """Open a finished run.

    Raises:
        ReportError: the folder is missing, holds no manifest, or was written by a newer version.

    Example:
        >>> open_run("runs/pocket").report.heads.head()   # doctest: +SKIP
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ReportError(f"run {folder}", found="no such folder", expected="a folder made by 'attnscope report'")
    try:
        manifest = json.loads(_read(folder / MANIFEST))
    except ValueError as error:
        raise ReportError(f"{folder / MANIFEST}", found=f"no JSON ({error})", expected="a manifest") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ReportError(f"{folder / MANIFEST}", found="another format", expected=f"format {FORMAT!r}")
    if manifest.get("version", 0) > VERSION:
        raise ReportError(
            f"run {folder}",
            found=f"version {manifest['version']}",
            expected=f"at most {VERSION}",
            fix="Upgrade attnscope to read it.",
        )
    return RunDirectory(folder)


def check_writable(path: str | Path) -> Path:
    """Return the path if a run can be written there: absent, empty, or an earlier run (which is replaced whole).

    Raises:
        OutputError: it holds files that attnscope did not write, is a file, or cannot be written.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output {folder}", found="a file", expected="a folder, or nothing")
    foreign = _foreign_files(folder) if folder.is_dir() else []
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
    folder = check_writable(path)
    token = uuid.uuid4().hex[:8]
    fresh = folder.parent / f".{folder.name}.{token}.new"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        _fill(fresh, report, statistics, pages)
        _swap(fresh, folder, folder.parent / f".{folder.name}.{token}.old")
    except OSError as error:
        raise OutputError(f"output {folder}", found=str(error), expected="a writable place") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return RunDirectory(folder)


def _fill(
    folder: Path,
    report: HeadReport,
    statistics: Mapping[str, xr.Dataset],
    pages: Mapping[str, str | Callable[[], str]],
) -> None:
    for name, data in statistics.items():
        data.to_zarr(folder / "statistics" / f"{name}.zarr", mode="w", zarr_format=2, consolidated=False)
    report.heads.to_parquet(folder / "heads.parquet", index=False)
    report.heads.to_csv(folder / "heads.csv", index=False)
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    for name, text in pages.items():
        (folder / name).write_text(text if isinstance(text, str) else text(), encoding="utf-8")
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "model": report.model.model_id,
        "created": report.provenance.created,
        "attnscope": report.provenance.attnscope_version,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


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


def _foreign_files(folder: Path) -> list[str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        ours = {*manifest["files"], MANIFEST} if manifest["format"] == FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    held = (str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in held if name not in ours)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ReportError(str(path), found="no such file", expected="a finished run") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(str(path), found=f"unreadable: {error}", expected="a finished run") from error
