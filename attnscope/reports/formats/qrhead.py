"""QRHead: a JSON ranking of heads with scores, or the YAML that its retriever reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...core.any_run import AnyRun
from ...core.errors import ReportError
from ...core.head_file import HeadFile, RankedHead, Ranking
from ...core.place import write_file
from . import _run
from ._base import ExportOptions
from ._read import check_format, decode, head_name, number, peek_json, read_bytes, read_json_file, source, validated

RANKING = 'a JSON list [["13-18", 0.9], …], the best head first'
SETTINGS = 'YAML with attn_head_set: "13-18,13-21,…" or "full_heads"'
HEADS, EVERY = "attn_head_set", "full_heads"
YAML = (".yaml", ".yml")
DEFAULT_TOP = 16
"""Heads in most of the published YAML files (32 for the 70B model)."""


class Qrhead:
    """Query-focused retrieval heads, the best first (2506.09944): a JSON ranking, or YAML when the name ends so."""

    name = "qrhead"
    title = "QRHead rankings (JSON) and head sets (YAML)"

    def detect(self, path: Path) -> bool:
        """Whether it is YAML by name, or a JSON list of pairs."""
        if path.suffix in YAML:
            return path.is_file()
        data = peek_json(path)
        return isinstance(data, list) and bool(data) and isinstance(data[0], list)

    def read(self, path: Path) -> HeadFile:
        """Read the file, YAML where its name ends in .yaml or .yml.

        Raises:
            ReportError: malformed; names the line or the key.
        """
        return _read_yaml(path) if path.suffix in YAML else _read_json(path)

    def write(self, file: HeadFile, path: Path) -> Path:
        """Write the file, YAML where its name ends in .yaml or .yml.

        Raises:
            OutputError: the place holds something else, or the disk refused.
            ReportError: a HeadFile of another format; JSON of a ranking without scores.
        """
        check_format(file, self.name)
        if not isinstance(file.content, Ranking):
            raise ReportError("head file", found=f"content {file.content.kind!r}", expected="a ranking")
        if path.suffix in YAML:
            return write_file(path, _yaml(file, file.content).encode(), SETTINGS, self.read)
        if file.content.every_head or any(item.score is None for item in file.content.heads):
            raise ReportError(
                "ranking", found="heads without scores", expected="scores for JSON", fix="Write it as .yaml instead."
            )
        pairs = [(f"{item.layer}-{item.head}", item.score) for item in file.content.heads]
        return write_file(path, json.dumps(pairs, indent=4).encode(), RANKING, self.read)

    def from_run(self, run: AnyRun, options: ExportOptions) -> HeadFile:
        """Rank all heads by their mean QR score; with `top`, keep the best of them.

        Raises:
            ReportError: the run holds no QR scores.
        """
        options.only(self.name, "top")
        info = run.report.model
        _run.every_layer(info, self.name)
        data = _run.statistics(run, "qrhead", ("qr_score",), "'attnscope retrieval'")
        scores = _run.mean_over_prompts(data["qr_score"])
        order = np.argsort(-scores.ravel(), kind="stable")[: options.top]
        heads = [divmod(int(place), info.n_heads) for place in order]
        return HeadFile(
            format=self.name,
            space="query_head",
            n_layers=info.n_layers,
            n_heads=info.n_heads,
            model_id=info.model_id,
            content=Ranking(heads=tuple(RankedHead(layer=la, head=h, score=float(scores[la, h])) for la, h in heads)),
        )


FORMAT = Qrhead()


def _read_json(path: Path) -> HeadFile:
    data = read_json_file(path, RANKING)
    if not isinstance(data, list) or not data:
        raise ReportError(f"{path}, line 1", found=type(data).__name__, expected=RANKING)
    heads: list[RankedHead] = []
    seen: set[tuple[int, int]] = set()
    for place, item in enumerate(data):
        where = f"{path}, entry {place}"
        if not isinstance(item, list) or len(item) != 2:
            raise ReportError(where, found=repr(item)[:60], expected='["layer-head", score]')
        layer, head = head_name(item[0], where)
        score = number(item[1], f"{where} ({item[0]})")
        if (layer, head) in seen:
            raise ReportError(f"{where} ({item[0]})", found="the head twice", expected="once")
        if heads and score > heads[-1].score:  # type: ignore[operator]
            raise ReportError(
                f"{where} ({item[0]})",
                found=f"{score} after {heads[-1].score}",
                expected="scores from the largest down",
            )
        seen.add((layer, head))
        heads.append(RankedHead(layer=layer, head=head, score=score))
    ranking = Ranking(heads=tuple(heads))
    layers, n_heads = ranking.shape or (None, None)
    values = {"n_layers": layers, "n_heads": n_heads, "content": ranking, "source": source(path, [path])}
    return validated(HeadFile, {"format": Qrhead.name, "space": "query_head", **values}, str(path))


def _read_yaml(path: Path) -> HeadFile:
    import yaml

    text = decode(read_bytes(path, SETTINGS), str(path), SETTINGS)
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        found = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ReportError(where, found=f"no YAML ({found})", expected=SETTINGS) from error
    listed = data.get(HEADS) if isinstance(data, dict) else None
    if not isinstance(listed, str):
        raise ReportError(f"{path}, key {HEADS!r}", found=repr(listed)[:60], expected=SETTINGS)
    rest = {str(key): value for key, value in data.items() if key != HEADS}
    if listed == EVERY:
        ranking = Ranking(every_head=True)
    else:
        names = [head_name(name.strip(), f"{path}, key {HEADS!r}") for name in listed.split(",")]
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice:
            raise ReportError(f"{path}, key {HEADS!r}", found=f"{twice[0]}-{twice[1]} twice", expected="once")
        ranking = Ranking(heads=tuple(RankedHead(layer=layer, head=head) for layer, head in names))
    model = rest.get("model_name_or_path")
    values = {
        "format": Qrhead.name,
        "space": "query_head",
        "model_id": model if isinstance(model, str) else None,
        "content": ranking,
        "config": rest,
        "source": source(path, [path]),
    }
    return validated(HeadFile, values, str(path))


def _yaml(file: HeadFile, ranking: Ranking) -> str:
    heads = ranking.heads
    if heads and all(item.score is not None for item in heads) and ranking.shape is not None:
        raise ReportError(
            "ranking for YAML",
            found="every head",
            expected="the best few",
            fix=f"Give --top, for example {DEFAULT_TOP}.",
        )
    listed = EVERY if ranking.every_head else ",".join(f"{item.layer}-{item.head}" for item in heads)
    settings: dict[str, Any] = {HEADS: listed}
    if not file.config and file.model_id:
        settings |= {"model_base_class": file.model_id.rsplit("/", 1)[-1], "model_name_or_path": file.model_id}
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in {**settings, **file.config}.items())
