"""DuoAttention: a folder with one gate a KV head (TSV) and the sizes of sinks and window (JSON)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from ...analyses.compare import tied_at_cut
from ...analyses.kv_choice import full_under_budget, reduce_to_kv
from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import Grids, HeadFile
from ...core.place import write_files
from . import _run
from ._base import ExportOptions
from ._read import check_format, decode, number, parse_json, read_bytes, source, validated

TABLE, CONFIG = "full_attention_heads.tsv", "config.json"
EXPECTED = f"a folder with {TABLE} and {CONFIG}"
OURS = "attnscope"
"""Key of config.json that holds how a file of ours was made; DuoAttention's own loader ignores it."""


class DuoAttention:
    """Gates of KV heads, 1 keeps the whole cache and 0 streams (2410.10819).

    The table has a row a layer and a column a KV head, tabs between; the configuration holds `sink_size` and
    `recent_size`.
    """

    name = "duo_attention"
    title = "DuoAttention gates of KV heads"

    def detect(self, path: Path) -> bool:
        """Whether the folder holds the table."""
        return (path / TABLE).is_file()

    def read(self, path: Path) -> HeadFile:
        """Read the folder.

        Raises:
            ReportError: a file is missing or malformed; names the line or the key.
        """
        if not path.is_dir():
            found = "a file" if path.exists() else "no such folder"
            raise ReportError(f"folder {path}", found=found, expected=EXPECTED)
        rows = _table(path / TABLE)
        config = _config(path / CONFIG)
        values = {
            "format": self.name,
            "space": "kv_head",
            "n_layers": len(rows),
            "n_heads": len(rows[0]),
            "model_id": config["model_name"] if isinstance(config.get("model_name"), str) else None,
            "content": Grids(main="gate", values={"gate": rows}),
            "config": config,
            "source": source(path, [path / TABLE, path / CONFIG]),
        }
        return validated(HeadFile, values, str(path))

    def write(self, file: HeadFile, path: Path) -> Path:
        """Write the folder; numbers as `%.18e`, so that they are read back bit by bit.

        Raises:
            OutputError: the place holds something else, or the disk refused.
            ReportError: a HeadFile of another format.
        """
        check_format(file, self.name)
        table = io.StringIO()
        np.savetxt(table, _gates(file), fmt="%.18e", delimiter="\t")
        files = {TABLE: table.getvalue().encode(), CONFIG: json.dumps(file.config).encode()}
        return write_files(path, files, EXPECTED, self.read)

    def from_run(self, run: AnyRun, options: ExportOptions) -> HeadFile:
        """Take the trained gates, or with `score` a head score reduced to KV heads by their largest.

        Raises:
            ReportError: the run holds no gates and no score was asked for.
        """
        options.only(self.name, "score", "budget")
        info = run.report.model
        _run.every_layer(info, self.name)
        if options.score is None:
            command = "'attnscope gates', or ask for a head score instead: --score retrieval --budget 0.5"
            data = _run.statistics(run, "duo_gates", ("duo_gate",), command)
            values = _run.whole(data["duo_gate"], "layer", "kv_head")
            sink, recent = int(data.attrs["sink_tokens"]), int(data.attrs["recent_tokens"])
            config: dict[str, Any] = {"lr": data.attrs["learning_rate"], "num_steps": data.attrs["steps"]}
            made: dict[str, Any] = {"gates": "trained"}
        else:
            scores = _run.report_score(run, options.score)
            values = reduce_to_kv(scores, info.n_kv_heads)
            sink, recent = run.report.decode.sink_tokens, run.report.decode.recent_tokens
            config, made = {}, {"gates": "head score", "score": options.score, "reduction": "max over query heads"}
            if np.isnan(values).any():
                raise ReportError(
                    f"score {options.score!r}", found="heads without it", expected="a score for every head"
                )
            if options.budget is None and (values.min() < 0 or values.max() > 1):
                raise ReportError(
                    f"score {options.score!r}",
                    found=f"values from {values.min():.3g} to {values.max():.3g}",
                    expected="0 to 1, as DuoAttention clips gates to that",
                    fix="Give --budget: the largest become 1, all others 0.",
                )
        if options.budget is not None:
            chosen = full_under_budget([values], options.budget)
            made |= {"budget": options.budget, "tied_at_cut": tied_at_cut(values, chosen)}
            values = chosen.astype(float)
        config = {
            "model_name": info.model_id,
            "sink_size": sink,
            "recent_size": recent,
            **config,
            OURS: {**made, "version": run.report.provenance.attnscope_version},
        }
        content = Grids(main="gate", values={"gate": _run.grid(values)})
        return HeadFile(
            format=self.name,
            space="kv_head",
            n_layers=info.n_layers,
            n_heads=info.n_kv_heads,
            model_id=info.model_id,
            content=content,
            config=config,
        )


FORMAT = DuoAttention()


def _gates(file: HeadFile) -> np.ndarray:
    if not isinstance(file.content, Grids):
        raise ReportError("head file", found=f"content {file.content.kind!r}", expected="grids with 'gate'")
    values = file.content.scores()
    if np.isnan(values).any():
        layer, head = np.argwhere(np.isnan(values))[0]
        raise ReportError(f"gate of layer {layer}, KV head {head}", found="no value", expected="a gate for every head")
    return values


def _table(path: Path) -> tuple[tuple[float, ...], ...]:
    text = decode(read_bytes(path, EXPECTED), str(path), "numbers")
    rows: list[tuple[float, ...]] = []
    for line, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        where = f"{path}, line {line}"
        cells = []
        for column, cell in enumerate(row.split("\t"), start=1):
            try:
                cells.append(float(cell))
            except ValueError:
                raise ReportError(
                    f"{where}, column {column}", found=repr(cell)[:40], expected="a number, with tabs between"
                ) from None
            number(cells[-1], f"{where}, column {column}")
        if rows and len(cells) != len(rows[0]):
            raise ReportError(where, found=f"{len(cells)} columns", expected=f"{len(rows[0])}, as in the first line")
        rows.append(tuple(cells))
    if not rows:
        raise ReportError(f"{path}, line 1", found="no rows", expected="a row a layer")
    return tuple(rows)


def _config(path: Path) -> dict[str, Any]:
    data = parse_json(decode(read_bytes(path, EXPECTED), str(path), "JSON"), str(path), "an object")
    if not isinstance(data, dict):
        raise ReportError(f"{path}, line 1", found=type(data).__name__, expected="an object")
    for key in ("sink_size", "recent_size"):
        value = data.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ReportError(f"{path}, key {key!r}", found=repr(value), expected="a number of tokens")
    return data
