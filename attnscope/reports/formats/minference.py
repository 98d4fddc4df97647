"""MInference and Qwen2.5-1M: a JSON list of layers, each from query head to its sparse pattern."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import HeadFile, Pattern, Patterns
from ...core.place import write_file
from . import _run
from ._base import ExportOptions
from ._read import check_format, number, peek_json, read_json_file, source, validated

EXPECTED = 'a JSON list with an object a layer, {"0": ["vertical_and_slash", 1000, 6096, 0.69], …}'
NAMES = ("vertical_and_slash", "stream_llm", "block_sparse")
"""Patterns that MInference's kernels know; of `stream_llm` the two sizes are sink tokens and window."""


class Minference:
    """One sparse pattern for every query head: kind, columns, diagonals, and the search's score (2407.02490).

    The score is a share of attention in some files and a loss in others (whole numbers); it is kept as it stands.
    """

    name = "minference"
    title = "MInference and Qwen2.5-1M sparse patterns"

    def detect(self, path: Path) -> bool:
        """Whether it is a JSON list of objects."""
        data = peek_json(path)
        return isinstance(data, list) and bool(data) and isinstance(data[0], dict)

    def read(self, path: Path) -> HeadFile:
        """Read the file.

        Raises:
            ReportError: malformed; names the layer and the key.
        """
        data = read_json_file(path, EXPECTED)
        if not isinstance(data, list) or not data:
            raise ReportError(f"{path}, line 1", found=type(data).__name__, expected=EXPECTED)
        rows: list[tuple[Pattern, ...]] = []
        for layer, entry in enumerate(data):
            where = f"{path}, layer {layer}"
            if not isinstance(entry, dict) or not entry:
                raise ReportError(where, found=repr(entry)[:60], expected="an object from query head to pattern")
            for key, wanted in zip(entry, map(str, range(len(entry))), strict=True):
                if key != wanted:
                    raise ReportError(f"{where}, key {key!r}", found="this key", expected=f"{wanted!r}, heads in order")
            if rows and len(entry) != len(rows[0]):
                raise ReportError(where, found=f"{len(entry)} heads", expected=f"{len(rows[0])}, as in layer 0")
            rows.append(tuple(_pattern(value, f"{where}, key {key!r}") for key, value in entry.items()))
        values = {
            "format": self.name,
            "space": "query_head",
            "n_layers": len(rows),
            "n_heads": len(rows[0]),
            "content": Patterns(patterns=tuple(rows)),
            "source": source(path, [path]),
        }
        return validated(HeadFile, values, str(path))

    def write(self, file: HeadFile, path: Path) -> Path:
        """Write the file.

        Raises:
            OutputError: the place holds something else, or the disk refused.
            ReportError: a HeadFile of another format.
        """
        check_format(file, self.name)
        if not isinstance(file.content, Patterns):
            raise ReportError("head file", found=f"content {file.content.kind!r}", expected="patterns")
        layers = [
            {str(head): [item.name, item.vertical, item.slash, item.score] for head, item in enumerate(row)}
            for row in file.content.patterns
        ]
        return write_file(path, (json.dumps(layers) + "\n").encode(), EXPECTED, self.read)

    def from_run(self, run: AnyRun, options: ExportOptions) -> HeadFile:
        """Take the vertical-and-slash pattern of every head, and the attention that it covers as the score.

        Raises:
            ReportError: the run holds no patterns.
        """
        options.only(self.name)
        info = run.report.model
        _run.every_layer(info, self.name)
        names = ("vertical_size", "slash_size", "vertical_slash_mass")
        data = _run.statistics(run, "patterns", names, "'attnscope retrieval'")
        vertical, slash, mass = (_run.whole(data[name], "layer", "head") for name in names)
        rows = tuple(
            tuple(
                Pattern(name=NAMES[0], vertical=int(v), slash=int(s), score=float(m))
                for v, s, m in zip(*row, strict=True)
            )
            for row in zip(vertical, slash, mass, strict=True)
        )
        return HeadFile(
            format=self.name,
            space="query_head",
            n_layers=info.n_layers,
            n_heads=info.n_heads,
            model_id=info.model_id,
            content=Patterns(patterns=rows),
        )


FORMAT = Minference()


def _pattern(value: Any, where: str) -> Pattern:
    if not isinstance(value, list) or len(value) != 4:
        raise ReportError(where, found=repr(value)[:60], expected="[pattern, columns, diagonals, score]")
    name, vertical, slash, score = value
    if name not in NAMES:
        raise ReportError(where, found=repr(name)[:60], expected=f"one of {', '.join(NAMES)}")
    for size in (vertical, slash):
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ReportError(where, found=f"size {size!r}", expected="a whole number of columns or diagonals")
    return Pattern(name=name, vertical=vertical, slash=slash, score=number(score, f"{where}, score"))
