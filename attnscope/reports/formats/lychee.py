"""LycheeDecode: a folder with retrieval heads and their gates (safetensors), and what they were trained with (JSON)."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ...analyses.head_sets import lychee_retrieval
from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import Grid, Grids, HeadFile
from ...core.place import write_files
from . import _run
from ._base import ExportOptions
from ._read import check_format, decode, parse_json, read_bytes, source, validated

TENSORS, CONFIG = "full_head.safetensors", "config.json"
NAMES = ("full_head", "a", "b")
EXPECTED = f"a folder with {TENSORS} and {CONFIG}"
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle")
CONVERSION = (files(__package__) / "lychee_conversion.txt").read_text(encoding="utf-8")
"""What a user runs in an environment of their own to turn LycheeDecode's pickles into this format."""


class Lychee:
    """HardKuma gates of KV heads and the retrieval heads that they choose (2602.04541).

    The official files are pickles (`full_head.pt`, `a.pt`, `b.pt`); here the same tensors stand in safetensors:
    `full_head`, `a` and `b`, each `[L, G]`, `full_head` of zeros and ones. `a` and `b` may be absent.
    """

    name = "lychee"
    title = "LycheeDecode retrieval heads and gates (safetensors)"

    def detect(self, path: Path) -> bool:
        """Whether the folder holds the tensors, or the path is a pickle; reading that says how to convert it."""
        return (path / TENSORS).is_file() or _pickle(path)

    def read(self, path: Path) -> HeadFile:
        """Read the folder.

        Raises:
            ReportError: missing or malformed (names the key), or a pickle (says how to convert it).
        """
        if _pickle(path):
            raise ReportError(
                f"file {path}",
                found="a pickle",
                expected=EXPECTED,
                fix=f"attnscope never unpickles. Convert it in an environment of your own:\n{CONVERSION}",
            )
        if not path.is_dir():
            raise ReportError(f"folder {path}", found="no such folder", expected=EXPECTED)
        grids = _tensors(path / TENSORS)
        config = parse_json(
            decode(read_bytes(path / CONFIG, EXPECTED), CONFIG, "JSON"), str(path / CONFIG), "an object"
        )
        if not isinstance(config, dict):
            raise ReportError(f"{path / CONFIG}, line 1", found=type(config).__name__, expected="an object")
        rows = grids["full_head"]
        values = {
            "format": self.name,
            "space": "kv_head",
            "n_layers": len(rows),
            "n_heads": len(rows[0]),
            "model_id": config["model_name"] if isinstance(config.get("model_name"), str) else None,
            "content": validated(Grids, {"main": "full_head", "values": grids}, str(path / TENSORS)),
            "config": config,
            "source": source(path, [path / TENSORS, path / CONFIG]),
        }
        return validated(HeadFile, values, str(path))

    def write(self, file: HeadFile, path: Path) -> Path:
        """Write the folder.

        Raises:
            OutputError: the place holds something else, or the disk refused.
            ReportError: a HeadFile of another format.
        """
        from safetensors.numpy import save

        check_format(file, self.name)
        if not isinstance(file.content, Grids):
            raise ReportError("head file", found=f"content {file.content.kind!r}", expected="grids with 'full_head'")
        tensors = {name: _tensor(np.array(rows, dtype=float)) for name, rows in file.content.values.items()}
        files = {TENSORS: save(tensors), CONFIG: json.dumps(file.config).encode()}
        return write_files(path, files, EXPECTED, self.read)

    def from_run(self, run: AnyRun, options: ExportOptions) -> HeadFile:
        """Take the trained HardKuma gates; a head is a retrieval head where their mean is above 0.5, and in layer 0.

        Raises:
            ReportError: the run holds no HardKuma gates.
        """
        options.only(self.name)
        info = run.report.model
        _run.every_layer(info, self.name)
        names = ("hardkuma_a", "hardkuma_b")
        data = _run.statistics(run, "hardkuma_gates", names, "'attnscope gates --method hardkuma'")
        a, b = (_run.whole(data[name], "layer", "kv_head").astype(np.float32).astype(float) for name in names)
        config: dict[str, Any] = {
            "model_name": info.model_id,
            "sink_size": int(data.attrs["sink_tokens"]),
            "recent_size": int(data.attrs["recent_tokens"]),
            "num_steps": int(data.attrs["steps"]),
            "target_heads": round(float(data.attrs["target"]) * data["hardkuma_a"].size),
            "attnscope": {
                "rule": "b*B(1+1/a,b) > 0.5, layer 0 forced",
                "version": run.report.provenance.attnscope_version,
            },
        }
        grids = {"full_head": lychee_retrieval(a, b).astype(float), "a": a, "b": b}
        return HeadFile(
            format=self.name,
            space="kv_head",
            n_layers=info.n_layers,
            n_heads=info.n_kv_heads,
            model_id=info.model_id,
            content=Grids(main="full_head", values={name: _run.grid(values) for name, values in grids.items()}),
            config=config,
        )


FORMAT = Lychee()


def _pickle(path: Path) -> bool:
    if path.is_dir():
        return (path / "full_head.pt").is_file() and not (path / TENSORS).is_file()
    return path.is_file() and path.suffix in PICKLES


def _tensor(values: np.ndarray) -> np.ndarray:
    single = values.astype(np.float32)
    return single if (single == values).all() else values


def _tensors(path: Path) -> dict[str, Grid]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, Any] = load(read_bytes(path, EXPECTED))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ReportError(f"{path}, line 1", found=f"no safetensors ({error})", expected=", ".join(NAMES)) from error
    unknown = sorted(set(tensors) - set(NAMES))
    if unknown or "full_head" not in tensors:
        key = unknown[0] if unknown else "full_head"
        found = "an unknown tensor" if unknown else "no such tensor"
        raise ReportError(f"{path}, key {key!r}", found=found, expected="full_head, and a and b if they are known")
    grids: dict[str, Grid] = {}
    for name in (name for name in NAMES if name in tensors):
        values, where = np.asarray(tensors[name], dtype=float), f"{path}, key {name!r}"
        if values.ndim != 2 or not values.size or values.shape != tensors["full_head"].shape:
            raise ReportError(where, found=f"shape {values.shape}", expected="layers by KV heads")
        if not np.isfinite(values).all() or (name == "full_head" and not np.isin(values, (0, 1)).all()):
            raise ReportError(
                where, found="other values", expected="0 or 1" if name == "full_head" else "finite numbers"
            )
        if name != "full_head" and not (values > 0).all():
            raise ReportError(where, found="a value of 0 or less", expected="values above 0")
        grids[name] = _run.grid(values)
    return grids
