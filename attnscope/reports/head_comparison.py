"""Compare two sources of head scores: runs, reports, imported files and foreign files, in any mix."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..analyses.compare import Correlation, agree, correlate, overlap, tied_at_cut
from ..analyses.head_sets import top_mask
from ..core.errors import ReportError
from ..core.head_comparison import (
    ChunkOverlap,
    HeadComparison,
    HeadPoint,
    LabelRow,
    OverlapResult,
    RankCorrelation,
    ScoreRow,
    Side,
)
from ..core.head_file import Chunks, Space
from ..core.names import LABELS, SCORES
from ..core.report import HeadReport, Interval, Missing
from ._head_sides import Heads, in_kv_space, listed_mask, load_heads, score_values

DEFAULT_SHARE = 0.05
"""Share of heads in a set where neither side says how many."""
LEAST = 3
"""Heads that a rank correlation needs."""


def compare_heads(
    first: str | Path, second: str | Path, score: str = "retrieval", top: int | None = None, resamples: int = 1000
) -> HeadComparison:
    """Set two sources beside each other.

    Query heads against KV heads are compared as KV heads, each by the largest of its query heads; the result says so.
    A set of heads is what a file lists or marks with 1, else the `top` by score; without `top`, as many as the other
    side lists, else 5% of the heads that both have.

    Args:
        first, second: run directories, report.json, imported head files or foreign files.
        score: head score to take from runs.
        top: heads in a set.
        resamples: bootstrap draws of the correlations' intervals.

    Raises:
        ReportError: a side cannot be read, lacks the score, or the models have different shapes.
        StatisticsError: fewer heads have a score than are to be chosen.
    """
    a, b = load_heads(first, score), load_heads(second, score)
    if (a.chunks is None) != (b.chunks is None):
        other = b if a.chunks else a
        raise ReportError(other.path, found=other.what, expected="dominant chunks, as on the other side")
    shape_a, shape_b = _shapes(a, b)
    if a.chunks is not None and b.chunks is not None:
        sides = [_side(x, x.score, shape_a, None, "no set", 0) for x in (a, b)]
        nothing = Missing(reason="dominant chunks are no scores")
        return HeadComparison(
            space="query_head", first=sides[0], second=sides[1], overlap=nothing, correlation=nothing,
            chunks=_chunks(a.chunks, b.chunks),
        )  # fmt: skip
    space: Space = "kv_head" if a.space != b.space else a.space
    n_kv = (shape_a if a.space == "kv_head" else shape_b)[1]
    values, listed, shape = [], [], shape_a
    for side, own in ((a, shape_a), (b, shape_b)):
        found = side.values
        marked = None if side.listed is None else listed_mask(side, own, top)
        if side.space != space:
            found = None if found is None else in_kv_space(found, n_kv)
            marked = None if marked is None else in_kv_space(marked, n_kv)
        values.append(found)
        listed.append(marked)
        shape = (own[0], n_kv if space == "kv_head" else own[1])
    measured = np.ones(shape, dtype=bool)
    for found in values:
        measured &= np.ones(shape, dtype=bool) if found is None else ~np.isnan(found)
    size = top if top is not None else _size(listed, measured)
    sets, made = [], []
    for side, found, marked in zip((a, b), values, listed, strict=True):
        chosen, how, tied = _choose(side, found, marked, measured, size)
        sets.append(chosen)
        made.append(_side(side, side.score, shape, space, how, tied))
    lacking = [side.path for side, found in zip((a, b), values, strict=True) if found is None]
    correlation: RankCorrelation | Missing
    if lacking:
        correlation = Missing(reason=f"{' and '.join(lacking)} gives no score for every head")
    elif measured.sum() < LEAST:
        correlation = Missing(reason=f"{int(measured.sum())} heads have both scores, {LEAST} are needed")
    else:
        correlation = _correlation(correlate(values[0], values[1], resamples))  # type: ignore[arg-type]
    return HeadComparison(
        space=space,
        first=made[0],
        second=made[1],
        overlap=OverlapResult(**asdict(overlap(sets[0], sets[1], measured))),
        correlation=correlation,
        scores=_all_scores(a.report, b.report, top),
        labels=_all_labels(a.report, b.report),
        points=_points(values, sets, shape),
    )


def _shapes(a: Heads, b: Heads) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return both shapes; a list of a few query heads takes the other side's."""
    if a.shape is None or b.shape is None:
        other = b.shape if a.shape is None else a.shape
        if other is None or a.space != b.space:
            blank = a if a.shape is None else b
            raise ReportError(
                f"{blank.path}",
                found="a list of heads that does not say how many there are",
                expected="the model's shape",
                fix="Import it with --model first, and compare the imported file.",
            )
        return other, other
    same = a.shape[0] == b.shape[0]
    if a.space == b.space:
        same = same and a.shape[1] == b.shape[1]
    else:
        query, kv = (a, b) if a.space == "query_head" else (b, a)
        same = same and query.shape[1] % kv.shape[1] == 0  # type: ignore[index]
    if not same:
        words = [f"{side.shape[0]} layers of {side.shape[1]} {side.space.replace('_', ' ')}s" for side in (a, b)]  # type: ignore[index]
        raise ReportError(
            f"{b.path}",
            found=words[1],
            expected=f"{words[0]}, as {a.path} has",
            fix="Compare files of one model's shape.",
        )
    return a.shape, b.shape


def _size(listed: list[np.ndarray | None], measured: np.ndarray) -> int:
    sizes = [int((mask & measured).sum()) for mask in listed if mask is not None]
    return sizes[0] if sizes else max(1, round(DEFAULT_SHARE * int(measured.sum())))


def _choose(
    side: Heads, values: np.ndarray | None, listed: np.ndarray | None, measured: np.ndarray, size: int
) -> tuple[np.ndarray, str, int]:
    if listed is not None:
        chosen = listed & measured
        return chosen, f"{side.listed_as} ({int(chosen.sum())})", 0
    shown = np.where(measured, values, np.nan)  # type: ignore[arg-type]
    chosen = top_mask(shown, size)
    return chosen, f"top {size} by {side.score}", tied_at_cut(shown, chosen)


def _side(side: Heads, score: str, shape: tuple[int, int], space: Space | None, how: str, tied: int) -> Side:
    reduced = space is not None and side.space != space
    return Side(
        path=side.path,
        what=side.what,
        score=score,
        space=side.space,
        reduction="max over query heads" if reduced else None,
        model_id=side.model_id,
        n_layers=shape[0],
        n_heads=shape[1],
        chosen_by=how,
        tied=tied,
    )


def _correlation(found: Correlation) -> RankCorrelation:
    constant = Missing(reason="one of the scores is the same for every head")

    def interval(bounds: tuple[float, float] | None) -> Interval | None:
        return Interval(low=bounds[0], high=bounds[1], method="bootstrap over heads") if bounds else None

    return RankCorrelation(
        heads=found.heads,
        spearman=constant if found.spearman is None else found.spearman,
        spearman_interval=interval(found.spearman_interval),
        kendall=constant if found.kendall is None else found.kendall,
        kendall_interval=interval(found.kendall_interval),
    )


def _all_scores(a: HeadReport | None, b: HeadReport | None, top: int | None) -> tuple[ScoreRow, ...]:
    rows = []
    for score in SCORES if a is not None and b is not None else ():
        x, y = score_values(a, score), score_values(b, score)  # type: ignore[arg-type]
        measured = ~(np.isnan(x) | np.isnan(y))
        heads = int(measured.sum())
        if heads < LEAST:
            continue
        size = min(heads, top if top is not None else max(1, round(DEFAULT_SHARE * heads)))
        sets = [top_mask(np.where(measured, values, np.nan), size) for values in (x, y)]
        result = OverlapResult(**asdict(overlap(sets[0], sets[1], measured)))
        rows.append(ScoreRow(score=score, overlap=result, correlation=_correlation(correlate(x, y))))
    return tuple(rows)


def _all_labels(a: HeadReport | None, b: HeadReport | None) -> tuple[LabelRow, ...]:
    if a is None or b is None:
        return ()
    shared = sorted({record.id for record in a.records} & {record.id for record in b.records})
    one, two = ({record.id: record for record in report.records} for report in (a, b))
    rows = []
    for label in LABELS if shared else ():
        found = agree(np.array([one[h].has(label) for h in shared]), np.array([two[h].has(label) for h in shared]))
        kappa = Missing(reason="both say the same of every head") if found.kappa is None else found.kappa
        rows.append(LabelRow(**{**asdict(found), "label": label, "kappa": kappa}))
    return tuple(rows)


def _points(values: list[np.ndarray | None], sets: list[np.ndarray], shape: tuple[int, int]) -> tuple[HeadPoint, ...]:
    def at(grid: np.ndarray | None, place: tuple[int, int]) -> float | None:
        return None if grid is None or np.isnan(grid[place]) else float(grid[place])

    return tuple(
        HeadPoint(
            layer=place[0],
            head=place[1],
            first=at(values[0], place),
            second=at(values[1], place),
            in_first=bool(sets[0][place]),
            in_second=bool(sets[1][place]),
        )
        for place in np.ndindex(*shape)
    )


def _chunks(a: Chunks, b: Chunks) -> ChunkOverlap:
    for name in ("pairing", "n_chunks"):
        if getattr(a, name) != getattr(b, name):
            raise ReportError(
                f"chunks: {name}", found=f"{getattr(a, name)} and {getattr(b, name)}", expected="the same"
            )
    shares, chance, sizes = [], [], []
    for row_a, row_b in zip(a.dominant, b.dominant, strict=True):
        for one, two in zip(row_a, row_b, strict=True):
            small = min(len(one), len(two))
            shares.append(len(set(one) & set(two)) / small)
            chance.append(max(len(one), len(two)) / a.n_chunks)
            sizes.append(small)
    return ChunkOverlap(
        heads=len(shares),
        chunks=max(sizes),
        n_chunks=a.n_chunks,
        shared=float(np.mean(shares)),
        expected=float(np.mean(chance)),
    )
