"""What is compared: a run, a report, or a head file, as scores and sets in one shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..analyses.kv_choice import reduce_to_kv
from ..core.errors import ReportError
from ..core.head_file import Chunks, Grids, HeadFile, Ranking, Space
from ..core.names import SCORES
from ..core.report import HeadReport, Measured
from ..core.run_directory import open_run
from .formats._read import decode, peek_json, read_bytes
from .head_files import read_head_file


@dataclass(frozen=True, eq=False)
class Heads:
    """One side of a comparison.

    Attributes:
        values: `[L, H]`, NaN where missing; None where it has no scores.
        listed: heads that it names as its set, in order; None where only scores say.
        shape: layers and heads; None where a file does not say.
        report: of a run.
    """

    path: str
    what: str
    score: str
    space: Space
    model_id: str | None
    shape: tuple[int, int] | None
    values: np.ndarray | None
    listed: tuple[tuple[int, int], ...] | None = None
    listed_as: str = ""
    chunks: Chunks | None = None
    report: HeadReport | None = None


def load_heads(path: str | Path, score: str) -> Heads:
    """Open one side.

    Args:
        path: a run directory, a report.json, an imported head file, or a foreign file.
        score: head score to take from a run or report.

    Raises:
        ReportError: none of these, or malformed, or the run lacks the score.
    """
    place = Path(path)
    report = _report(place)
    if report is not None:
        return of_report(report, score, str(place))
    return of_file(read_head_file(place), str(place))


def of_report(report: HeadReport, score: str, path: str) -> Heads:
    """Take one score of a report; layers without attention are rows of NaN.

    Raises:
        ReportError: no such score, or no head has it.
    """
    if score not in SCORES:
        raise ReportError(f"score {score!r}", found="no score of this name", expected=f"one of {', '.join(SCORES)}")
    values = score_values(report, score)
    if np.isnan(values).all():
        held = [name for name in SCORES if not np.isnan(score_values(report, name)).all()]
        raise ReportError(f"score {score!r} of {path}", found="not measured", expected=f"one of {', '.join(held)}")
    info = report.model
    shape = (info.n_layers, info.n_heads)
    return Heads(path, "run", score, "query_head", info.model_id, shape, values, report=report)


def score_values(report: HeadReport, score: str) -> np.ndarray:
    """Return one score of every head of every layer, `[n_layers, H]`, NaN where missing."""
    values = np.full((report.model.n_layers, report.model.n_heads), np.nan)
    for record in report.records:
        item = record.scores.get(score)  # type: ignore[call-overload]
        if isinstance(item, Measured):
            values[record.layer, record.head] = item.value
    return values


def of_file(file: HeadFile, path: str) -> Heads:
    """Take a head file's scores, and its set where it names one."""
    content = file.content
    shape = None if file.n_layers is None or file.n_heads is None else (file.n_layers, file.n_heads)
    values, score = file.scores(), content.main if isinstance(content, Grids) else "score"
    made = Heads(path, file.format, score, file.space, file.model_id, shape, values)
    if isinstance(content, Chunks):
        return replace(made, score="dominant chunks", chunks=content)
    if isinstance(content, Ranking) and content.every_head:
        return replace(made, score="no score", listed=(), listed_as="every head")
    if isinstance(content, Ranking) and values is None:
        listed = tuple((item.layer, item.head) for item in content.heads)
        scored = all(item.score is not None for item in content.heads)
        return replace(made, score="score" if scored else "no score", listed=listed, listed_as="the heads it lists")
    if values is not None and np.isin(values, (0, 1)).all():
        listed = tuple((int(layer), int(head)) for layer, head in np.argwhere(values == 1))
        return replace(made, listed=listed, listed_as="the heads marked 1")
    return made


def listed_mask(side: Heads, shape: tuple[int, int], top: int | None) -> np.ndarray:
    """Return the heads that a side lists, bool `[L, H]`; of an ordered list, the first `top`.

    Raises:
        ReportError: a head that the other side's model does not have.
    """
    mask = np.zeros(shape, dtype=bool)
    if side.listed_as == "every head":
        return ~mask
    ordered = side.values is None
    for layer, head in (side.listed or ())[: top if ordered else None]:
        if layer >= shape[0] or head >= shape[1]:
            raise ReportError(
                f"head {layer}-{head} of {side.path}",
                found="no such head on the other side",
                expected=f"a layer below {shape[0]} and a head below {shape[1]}",
            )
        mask[layer, head] = True
    return mask


def in_kv_space(values: np.ndarray, n_kv_heads: int) -> np.ndarray:
    """Return scores or a set of query heads as those of KV heads, by the largest of each group."""
    reduced = reduce_to_kv(values.astype(float), n_kv_heads)
    return reduced > 0 if values.dtype == bool else reduced


def _report(path: Path) -> HeadReport | None:
    if (path / "manifest.json").is_file():
        return open_run(path).report
    data = peek_json(path) if path.is_file() and path.suffix == ".json" else None
    if isinstance(data, dict) and {"records", "schema_version"} <= set(data):
        return HeadReport.from_json(decode(read_bytes(path, "JSON"), str(path), "JSON"), str(path))
    return None
