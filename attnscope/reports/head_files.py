"""Foreign head files: which format a path has, reading it, holding it against a model, and writing one from a run."""

from __future__ import annotations

from pathlib import Path

from ..core.any_run import AnyRun
from ..core.errors import ReportError
from ..core.head_file import HeadFile
from .formats import formats
from .formats._base import ExportOptions, HeadFormat
from .formats._read import decode, peek_json, read_bytes, validated


def detect_format(path: str | Path) -> str:
    """Return the name of a file's format.

    Raises:
        ReportError: there is no such path, or it looks like none or several of the formats.

    Example:
        >>> import json, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder) / "heads.json"
        ...     _ = place.write_text(json.dumps({"0-0": [0.5], "0-1": [0.0]}))
        ...     detect_format(place)
        'retrieval_head'
    """
    place = Path(path)
    if not place.exists():
        raise ReportError(f"file {place}", found="no such file", expected=f"a file of {', '.join(formats.names())}")
    named = [name for name in formats.names() if formats.get(name).detect(place)]
    if len(named) != 1:
        raise ReportError(
            f"file {place}",
            found=f"the looks of {' and '.join(named)}" if named else "no format that is known",
            expected=f"one of {', '.join(formats.names())}",
            fix="Name it with --from; then the message says what is wrong with the file.",
        )
    return named[0]


def read_head_file(path: str | Path, form: str | None = None) -> HeadFile:
    """Read a foreign file, or one that `attnscope import` wrote.

    Args:
        path: the file or folder.
        form: name of its format; None detects it.

    Raises:
        ReportError: no such path, no known format, or malformed; names the line or the key.
        UnknownNameError: no format of this name.
    """
    place = Path(path)
    if form is None and is_head_file(place):
        return HeadFile.from_json(decode(read_bytes(place, "JSON"), str(place), "JSON"), str(place))
    reader: HeadFormat = formats.get(form or detect_format(place))
    return reader.read(place)


def is_head_file(path: Path) -> bool:
    """Whether a path is a file that `attnscope import` wrote."""
    data = peek_json(path) if path.is_file() and path.suffix == ".json" else None
    return isinstance(data, dict) and data.get("document") == "head_file"


def fit(file: HeadFile, n_layers: int, n_heads: int, n_kv_heads: int, model_id: str) -> HeadFile:
    """Return the file with a model's shape, if it has that model's, and with its name where the file gives none.

    Args:
        file: any HeadFile; a ranking of a few heads gets its shape from here.
        n_layers, n_heads, n_kv_heads: of the model; query heads and KV heads a layer.
        model_id: the model.

    Raises:
        ReportError: the file has another shape, or names a head that the model does not have.

    Example:
        >>> from ..core.head_file import RankedHead, Ranking
        >>> few = HeadFile(format="qrhead", space="query_head", content=Ranking(heads=(RankedHead(layer=1, head=3),)))
        >>> fit(few, 2, 4, 2, "toy").n_heads
        4
    """
    wanted = (n_layers, n_heads if file.space == "query_head" else n_kv_heads)
    held = (file.n_layers, file.n_heads)
    if held != (None, None) and held != wanted:
        kind = "query" if file.space == "query_head" else "KV"
        raise ReportError(
            f"head file of format {file.format}",
            found=f"{held[0]} layers of {held[1]} {kind} heads",
            expected=f"{wanted[0]} layers of {wanted[1]}, as {model_id} has",
        )
    values = {**dict(file), "n_layers": wanted[0], "n_heads": wanted[1], "model_id": file.model_id or model_id}
    return validated(HeadFile, values, f"head file of format {file.format}")


def export_heads(
    given: AnyRun | HeadFile, to: str, path: str | Path, options: ExportOptions | None = None
) -> tuple[HeadFile, Path]:
    """Write a head file for a decoder.

    Args:
        given: a finished run, or a HeadFile of the same format.
        to: name of the format.
        path: file or folder to write; something of another kind there is left alone.
        options: for a run; see `ExportOptions`.

    Returns:
        What was written, and where.

    Raises:
        ReportError: what was given lacks what the format needs.
        OutputError: the place holds something else, or the disk refused.
        UnknownNameError: no format of this name.
    """
    form: HeadFormat = formats.get(to)
    if isinstance(given, HeadFile):
        (options or ExportOptions()).only(f"{to} from a head file")
        file = given
    else:
        file = form.from_run(given, options or ExportOptions())
    return file, form.write(file, Path(path))
