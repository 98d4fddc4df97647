"""RazorAttention: echo and induction scores and the heads that they protect, in a JSON of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...analyses.head_sets import razor_protected
from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import Grid, Grids, HeadFile, Number
from ...core.place import write_file
from . import _run
from ._base import ExportOptions
from ._read import check_format, number, peek_json, read_json_file, source, validated

EXPECTED = 'a JSON object with "format": "razor", "echo", "induction" and "protected"'
RULE = "top 14% of KV heads by induction and top 1% by echo, largest of the query heads of a group"
SINK_TOKENS, LOCAL_TOKENS = 4, 256


class Razor:
    """Scores `echo` and `induction` of every query head, and `protected` KV heads (2407.15891).

    Ports of RazorAttention compute these when they load a model and ship no file, so the layout is ours:
    `{"format": "razor", "model", "rule", "sink_tokens", "local_tokens", "echo": [[…]], "induction": [[…]],
    "protected": [[true, …]]}`, scores by layer and query head, `protected` by layer and KV head.
    """

    name = "razor"
    title = "RazorAttention scores and protected KV heads"

    def detect(self, path: Path) -> bool:
        """Whether it is a JSON object that names the format."""
        data = peek_json(path)
        return isinstance(data, dict) and data.get("format") == self.name

    def read(self, path: Path) -> HeadFile:
        """Read the file.

        Raises:
            ReportError: malformed; names the line or the key.
        """
        data = read_json_file(path, EXPECTED)
        if not isinstance(data, dict):
            raise ReportError(f"{path}, line 1", found=type(data).__name__, expected=EXPECTED)
        if data.get("format") != self.name:
            raise ReportError(f"{path}, key 'format'", found=repr(data.get("format"))[:60], expected=repr(self.name))
        grids: dict[str, Grid] = {
            name: _grid(data.get(name), f"{path}, key {name!r}") for name in ("induction", "echo")
        }
        if len(grids["echo"]) != len(grids["induction"]) or len(grids["echo"][0]) != len(grids["induction"][0]):
            raise ReportError(f"{path}, key 'echo'", found="another shape", expected="the shape of 'induction'")
        layers, heads = len(grids["echo"]), len(grids["echo"][0])
        _protected(data.get("protected"), layers, heads, f"{path}, key 'protected'")
        rest = {key: value for key, value in data.items() if key not in ("format", "echo", "induction")}
        values = {
            "format": self.name,
            "space": "query_head",
            "n_layers": layers,
            "n_heads": heads,
            "model_id": data["model"] if isinstance(data.get("model"), str) else None,
            "content": Grids(main="induction", values=grids),
            "config": rest,
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
        if not isinstance(file.content, Grids):
            raise ReportError("head file", found=f"content {file.content.kind!r}", expected="grids")
        data = {"format": self.name, **file.config, **file.content.values}
        return write_file(path, (json.dumps(data) + "\n").encode(), EXPECTED, self.read)

    def from_run(self, run: AnyRun, options: ExportOptions) -> HeadFile:
        """Take the mean scores over prompts, and protect the best heads.

        Raises:
            ReportError: the run holds no RazorAttention scores.
        """
        options.only(self.name)
        info = run.report.model
        _run.every_layer(info, self.name)
        names = ("razor_echo", "razor_induction")
        data = _run.statistics(run, "razor", names, "'attnscope retrieval'")
        echo, induction = (_run.mean_over_prompts(data[name]) for name in names)
        config: dict[str, Any] = {
            "model": info.model_id,
            "rule": RULE,
            "sink_tokens": SINK_TOKENS,
            "local_tokens": LOCAL_TOKENS,
            "protected": razor_protected(echo, induction, info.n_kv_heads).tolist(),
        }
        return HeadFile(
            format=self.name,
            space="query_head",
            n_layers=info.n_layers,
            n_heads=info.n_heads,
            model_id=info.model_id,
            content=Grids(main="induction", values={"induction": _run.grid(induction), "echo": _run.grid(echo)}),
            config=config,
        )


FORMAT = Razor()


def protected(file: HeadFile) -> np.ndarray:
    """Return the protected KV heads of a razor HeadFile, bool `[L, G]`."""
    return np.array(file.config["protected"], dtype=bool)


def _grid(value: Any, where: str) -> tuple[tuple[Number, ...], ...]:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        raise ReportError(where, found=repr(value)[:60], expected="a list of layers, each a list of heads' scores")
    for layer, row in enumerate(value):
        if len(row) != len(value[0]):
            raise ReportError(f"{where}, layer {layer}", found=f"{len(row)} heads", expected=len(value[0]))
    return tuple(
        tuple(number(item, f"{where}, layer {layer}, head {head}") for head, item in enumerate(row))
        for layer, row in enumerate(value)
    )


def _protected(value: Any, layers: int, heads: int, where: str) -> None:
    rows = value if isinstance(value, list) else []
    widths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if len(rows) != layers or len(widths) != 1 or 0 in widths or heads % next(iter(widths)):
        raise ReportError(where, found=repr(value)[:60], expected=f"{layers} layers of KV heads, a divisor of {heads}")
    if not all(isinstance(item, bool) for row in rows for item in row):
        raise ReportError(where, found="other values", expected="true or false")
