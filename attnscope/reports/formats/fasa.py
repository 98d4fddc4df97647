"""FASA: the dominant frequency chunks of every head, in a JSON of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import Chunks, HeadFile
from ...core.place import write_file
from . import _run
from ._base import ExportOptions
from ._read import check_format, peek_json, read_json_file, source, validated

EXPECTED = 'a JSON object with "format": "fasa", "pairing", "n_chunks" and "dominant"'
CONTENT = ("pairing", "n_chunks", "dominant", "agreement")


class Fasa:
    """Chunks whose partial logits pick the keys (2602.03152), by layer and query head, the best first.

    The paper's code fixes no file, so the layout is ours: `{"format": "fasa", "model", "pairing", "n_chunks",
    "dominant": [[[3, 17, …]]], "agreement": [[[…]]]}`. `pairing` is `rotate_half` where chunk i turns dimensions
    i and i + D/2, `interleaved` where the model turns (2i, 2i + 1), and `adjacent` where these are taken whatever it
    turns, as the paper's code does; chunk numbers mean other dimensions under another pairing.
    `agreement` may be absent.
    """

    name = "fasa"
    title = "FASA dominant frequency chunks"

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
        content = validated(Chunks, {name: data[name] for name in CONTENT if name in data}, str(path))
        layers, heads = content.shape
        values: dict[str, Any] = {
            "format": self.name,
            "space": "query_head",
            "n_layers": layers,
            "n_heads": heads,
            "model_id": data["model"] if isinstance(data.get("model"), str) else None,
            "content": content,
            "config": {key: value for key, value in data.items() if key not in (*CONTENT, "format")},
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
        if not isinstance(file.content, Chunks):
            raise ReportError("head file", found=f"content {file.content.kind!r}", expected="chunks")
        content = file.content.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
        data = {"format": self.name, **file.config, **content}
        return write_file(path, (json.dumps(data) + "\n").encode(), EXPECTED, self.read)

    def from_run(self, run: AnyRun, options: ExportOptions) -> HeadFile:
        """Take the dominant chunks and their contextual agreement; `top` keeps the best of each head.

        Raises:
            ReportError: the run holds no frequency chunks.
        """
        options.only(self.name, "top")
        info = run.report.model
        _run.every_layer(info, self.name)
        names = ("dominant_chunk", "contextual_agreement")
        data = _run.statistics(run, "frequency", names, "'attnscope frequency'")
        dominant = _run.whole(data[names[0]], "layer", "head", "rank")[..., : options.top].astype(int)
        agreement = np.asarray(data[names[1]].transpose("layer", "head", "chunk"), dtype=float)
        values = {
            "pairing": data.attrs["pairing"],
            "n_chunks": agreement.shape[-1],
            "dominant": dominant.tolist(),
            "agreement": np.where(np.isnan(agreement), None, agreement).tolist(),  # type: ignore[call-overload]
        }
        return HeadFile(
            format=self.name,
            space="query_head",
            n_layers=info.n_layers,
            n_heads=info.n_heads,
            model_id=info.model_id,
            content=validated(Chunks, values, f"statistics/frequency.zarr of {run.path}"),
            config={"model": info.model_id},
        )


FORMAT = Fasa()
