"""Reading other people's files: bytes, strict JSON, heads' names and numbers, with errors that say where."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ...core.errors import ReportError
from ...core.head_file import HeadFile, Source

_NAME = re.compile(r"(\d{1,6})-(\d{1,6})")
_Kind = TypeVar("_Kind", bound=BaseModel)


def read_bytes(path: Path, expected: str) -> bytes:
    """Return a file's bytes.

    Raises:
        ReportError: missing, a folder or unreadable.
    """
    if not path.exists():
        raise ReportError(f"file {path}", found="no such file", expected=expected)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReportError(f"file {path}", found=error.strerror or str(error), expected=expected) from error


def decode(data: bytes, where: str, expected: str) -> str:
    """Return UTF-8 text.

    Raises:
        ReportError: the bytes are no UTF-8; names the line.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ReportError(f"{where}, line {line}", found="bytes that are no UTF-8", expected=expected) from error


def parse_json(text: str, where: str, expected: str) -> Any:
    """Return the value of JSON text; a key that stands twice in one object is an error.

    Raises:
        ReportError: no JSON (names the line), or a key stands twice (names the key).
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ReportError(f"{where}, key {key!r}", found="the key twice in one object", expected="once")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}, column {error.colno}"
        raise ReportError(place, found=f"no JSON ({error.msg})", expected=expected) from error
    except (ValueError, RecursionError) as error:
        raise ReportError(where, found=f"no JSON ({error})", expected=expected) from error


def read_json_file(path: Path, expected: str) -> Any:
    """Return the value of a JSON file; see `parse_json`."""
    return parse_json(decode(read_bytes(path, expected), str(path), expected), str(path), expected)


def peek_json(path: Path) -> Any:
    """Return the value of a JSON file, or None where it is none; for detection."""
    try:
        if path.is_dir():
            return None
        with path.open("rb") as file:
            if file.read(64).lstrip()[:1] not in (b"[", b"{"):
                return None
        return read_json_file(path, "JSON")
    except (ReportError, OSError):
        return None


def number(value: Any, where: str) -> int | float:
    """Return a finite number as it stands (whole numbers stay whole).

    Raises:
        ReportError: not a number, or not finite; `where` names the key.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ReportError(where, found=repr(value)[:60], expected="a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise ReportError(where, found=value, expected="a finite number")
    return value


def head_name(text: Any, where: str) -> tuple[int, int]:
    """Return layer and head of `13-18`.

    Raises:
        ReportError: the text names no head.

    Example:
        >>> head_name("13-18", "line 1")
        (13, 18)
    """
    match = _NAME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ReportError(where, found=repr(text)[:60], expected="a head as layer-head, for example '13-18'")
    return int(match[1]), int(match[2])


def validated(kind: type[_Kind], values: dict[str, Any], where: str) -> _Kind:
    """Return a pydantic object.

    Raises:
        ReportError: a value is wrong; names the key.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "top level"
        message = first["msg"].removeprefix("Value error, ")
        raise ReportError(f"{where}, key {place!r}", found=message, expected=f"a valid {kind.__name__}") from error


def source(path: Path, parts: Sequence[Path]) -> Source:
    """Return where a HeadFile comes from; `parts` are the files in the order of their names."""
    digest = hashlib.sha256()
    for part in sorted(parts):
        digest.update(read_bytes(part, "a file"))
    return Source(path=str(path), sha256=digest.hexdigest())


def check_format(file: HeadFile, name: str) -> None:
    """Refuse to write a HeadFile of another format.

    Raises:
        ReportError: its format is another.
    """
    if file.format != name:
        raise ReportError(
            "head file", found=f"format {file.format}", expected=name, fix=f"Write it with --to {file.format}."
        )
