"""Retrieval_Head: one JSON object, `layer-head` to the scores of every trial; HeadKV reads the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import HeadFile, Trials
from ...core.place import write_file
from . import _run
from ._base import ExportOptions
from ._read import check_format, head_name, number, peek_json, read_json_file, source, validated

EXPECTED = "a JSON object from 'layer-head' to a list of trial scores"


class RetrievalHead:
    """Retrieval scores by trial (2404.15574), over all heads from 0-0 on.

    HeadKV (2410.19258) averages the lists in the order in which they stand and reshapes them to layers by heads, so
    a file in another order would silently give every head another's budget; it is refused.
    """

    name = "retrieval_head"
    title = "retrieval scores by trial (Retrieval_Head, HeadKV)"

    def detect(self, path: Path) -> bool:
        """Whether it is a JSON object whose first key is a head."""
        data = peek_json(path)
        first = next(iter(data), None) if isinstance(data, dict) else None
        return isinstance(first, str) and first.replace("-", "", 1).isdecimal() and "-" in first

    def read(self, path: Path) -> HeadFile:
        """Read the file.

        Raises:
            ReportError: malformed; names the line or the key.
        """
        data = read_json_file(path, EXPECTED)
        if not isinstance(data, dict) or not data:
            raise ReportError(f"{path}, line 1", found=type(data).__name__, expected=EXPECTED)
        named = [(*head_name(key, f"{path}, key {key!r}"), key) for key in data]
        n_heads = 1 + max(head for _, head, _ in named)
        if len(named) % n_heads:
            raise ReportError(
                str(path), found=f"{len(named)} heads with head {n_heads - 1} among them", expected="whole layers"
            )
        for place, (layer, head, key) in enumerate(named):
            if (layer, head) != divmod(place, n_heads):
                wanted = "-".join(map(str, divmod(place, n_heads)))
                raise ReportError(
                    f"{path}, key {key!r}", found=f"entry {place}", expected=f"{wanted!r} there (all heads in order)"
                )
        trials = [_trials(data[key], f"{path}, key {key!r}") for _, _, key in named]
        rows = tuple(tuple(trials[start : start + n_heads]) for start in range(0, len(trials), n_heads))
        values = {
            "format": self.name,
            "space": "query_head",
            "n_layers": len(rows),
            "n_heads": n_heads,
            "content": Trials(trials=rows),
            "source": source(path, [path]),
        }
        return validated(HeadFile, values, str(path))

    def write(self, file: HeadFile, path: Path) -> Path:
        """Write the file, all heads in order.

        Raises:
            OutputError: the place holds something else, or the disk refused.
            ReportError: a HeadFile of another format.
        """
        check_format(file, self.name)
        if not isinstance(file.content, Trials):
            raise ReportError("head file", found=f"content {file.content.kind!r}", expected="trials")
        table = {
            f"{layer}-{head}": list(trials)
            for layer, row in enumerate(file.content.trials)
            for head, trials in enumerate(row)
        }
        return write_file(path, json.dumps(table).encode(), EXPECTED, self.read)

    def from_run(self, run: AnyRun, options: ExportOptions) -> HeadFile:
        """Take the retrieval score of every needle that the model answered.

        Raises:
            ReportError: the run has no needle that was answered.
        """
        options.only(self.name)
        info = run.report.model
        _run.every_layer(info, self.name)
        data = _run.statistics(run, "needle", ("retrieval",), "'attnscope retrieval' on a model that finds needles")
        scores = np.asarray(data["retrieval"].transpose("layer", "head", "prompt"), dtype=float)
        rows = []
        for layer, heads in enumerate(scores):
            row = []
            for head, trials in enumerate(heads):
                kept = tuple(trials[~np.isnan(trials)].tolist())
                if not kept:
                    raise ReportError(
                        f"retrieval of layer {layer}, head {head}", found="no answered needle", expected="at least one"
                    )
                row.append(kept)
            rows.append(tuple(row))
        return HeadFile(
            format=self.name,
            space="query_head",
            n_layers=info.n_layers,
            n_heads=info.n_heads,
            model_id=info.model_id,
            content=Trials(trials=tuple(rows)),
        )


FORMAT = RetrievalHead()


def _trials(value: Any, where: str) -> tuple[int | float, ...]:
    if not isinstance(value, list) or not value:
        raise ReportError(where, found=repr(value)[:60], expected="a list with a score for every trial")
    return tuple(number(item, f"{where}, trial {i}") for i, item in enumerate(value))
