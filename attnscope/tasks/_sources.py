"""Where text comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import TaskError
from ..core.paths import data_path

EMBEDDED = "pocket/heldout.txt"


def read_documents(source: str | None, column: str, split: str) -> Iterator[str]:
    """Yield the documents of a file, a Hugging Face dataset or (None) the embedded English.

    Raises:
        TaskError: missing, unreadable, not UTF-8, or without the text column.
    """
    path = data_path(EMBEDDED) if source is None else Path(source)
    if path.is_dir():
        raise TaskError(f"text {source}", found="a folder", expected="a .txt, .jsonl or .parquet file")
    if path.suffix == ".txt":
        yield _decode(path)
    elif path.suffix == ".jsonl":
        yield from _jsonl(path, column)
    elif path.suffix == ".parquet":
        yield from _parquet(path, column)
    elif path.exists():
        raise TaskError(
            f"text {source}", found=f"a {path.suffix or 'nameless'} file", expected=".txt, .jsonl, .parquet"
        )
    else:
        yield from _hub(str(source), column, split)


def _decode(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise TaskError(f"text {path}", found="no such file", expected="a text file") from error
    except UnicodeDecodeError as error:
        raise TaskError(
            f"text {path}",
            found=f"byte {error.object[error.start]:#04x} at offset {error.start}, which is not UTF-8",
            expected="UTF-8 text",
            fix="Convert it, for example: iconv -f latin1 -t utf-8.",
        ) from error
    except OSError as error:
        raise TaskError(f"text {path}", found=str(error), expected="a readable file") from error


def _jsonl(path: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(_decode(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TaskError(f"{path}, line {number}", found=f"no JSON ({error})", expected="one JSON object") from error
        if not isinstance(row, dict) or not isinstance(row.get(column), str):
            found = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise TaskError(f"{path}, line {number}", found=found, expected=f"an object with a text {column!r}")
        yield row[column]


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise TaskError(f"text {path}", found="no such file", expected="a parquet file") from error
    except (pa.ArrowException, OSError) as error:
        raise TaskError(f"text {path}", found=f"unreadable: {error}", expected="a parquet file") from error
    with file:
        if column not in file.schema_arrow.names:
            raise TaskError(f"text {path}", found=f"columns {file.schema_arrow.names}", expected=f"a column {column!r}")
        for batch in file.iter_batches(columns=[column]):
            yield from (text for text in batch.column(0).to_pylist() if text)


def _hub(name: str, column: str, split: str) -> Iterator[str]:
    import datasets

    try:
        rows = datasets.load_dataset(name, split=split, streaming=True)
        names = rows.column_names
        if names is not None and column not in names:
            raise TaskError(f"dataset {name}", found=f"columns {names}", expected=f"a column {column!r}")
        for row in rows:
            yield row[column]
    except (OSError, ValueError) as error:
        raise TaskError(
            f"text {name!r}",
            found=f"neither a file nor a dataset that can be reached ({str(error).splitlines()[0]})",
            expected="a .txt, .jsonl or .parquet file, or the name of a Hugging Face dataset",
        ) from error
