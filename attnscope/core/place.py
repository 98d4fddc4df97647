"""Files written beside their place, then renamed there; anything of another kind that stands there is left alone."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import AttnscopeError, OutputError

FIX = "Choose another --out; nothing was changed."


def check_file(path: str | Path, what: str, same: Callable[[Path], object]) -> Path:
    """Return the path if a file can be written there: nothing, or a file of the same kind.

    Args:
        path: the file.
        what: the kind of file, in messages.
        same: reads a file of this kind, and raises an AttnscopeError for any other.

    Raises:
        OutputError: something else stands there.
    """
    file = Path(path)
    if file.is_dir():
        raise OutputError(f"output {file}", found="a folder", expected=f"{what}, or nothing", fix=FIX)
    if file.exists():
        _only(file, what, same)
    return file


def write_file(path: str | Path, data: bytes, what: str, same: Callable[[Path], object]) -> Path:
    """Write one file whole; missing folders above it are made.

    Args:
        path, what, same: see `check_file`; only a file of the same kind is replaced.
        data: its bytes.

    Raises:
        OutputError: something else stands there, or the disk refused.
    """
    file = check_file(path, what, same)
    fresh = file.parent / f".{file.name}.{uuid.uuid4().hex[:8]}.new"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(data)
        fresh.replace(file)
    except OSError as error:
        raise OutputError(f"output {file}", found=str(error), expected="a writable place") from error
    finally:
        if fresh.exists():
            fresh.unlink()
    return file


def write_files(path: str | Path, files: Mapping[str, bytes], what: str, same: Callable[[Path], object]) -> Path:
    """Write a folder of a few files whole; see `write_file`.

    Raises:
        OutputError: the folder holds anything but such files, is a file, or the disk refused.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output {folder}", found="a file", expected="a folder, or nothing", fix=FIX)
    if folder.is_dir() and any(folder.iterdir()):
        foreign = sorted(item.name for item in folder.iterdir() if item.name not in files)
        if foreign:
            raise OutputError(f"output {folder}", found=foreign[0], expected=f"{what}, or nothing", fix=FIX)
        _only(folder, what, same)
    token = uuid.uuid4().hex[:8]
    fresh, aside = folder.parent / f".{folder.name}.{token}.new", folder.parent / f".{folder.name}.{token}.old"
    try:
        fresh.mkdir(parents=True)
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        if folder.exists():
            folder.rename(aside)
        try:
            fresh.rename(folder)
        except OSError:
            if aside.exists():
                aside.rename(folder)
            raise
    except OSError as error:
        raise OutputError(f"output {folder}", found=str(error), expected="a writable place") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _only(path: Path, what: str, same: Callable[[Path], object]) -> None:
    try:
        same(path)
    except AttnscopeError as error:
        raise OutputError(f"output {path}", found="something else", expected=f"{what}, or nothing", fix=FIX) from error
