"""Build the parts of a RetrievalReport from statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from ..analyses.intervals import wilson
from ..analyses.retrieval import stability, top_heads
from ..core.ids import HeadId
from ..core.model_info import ModelInfo
from ..core.report import Interval, Missing
from ..core.retrieval_report import (
    AblationStep,
    BudgetPoint,
    NeedleCell,
    RankingAgreement,
    RankingStability,
    RetrievalHead,
)
from ..core.sink_report import Estimate
from .sinks import estimate

PER_PROMPT = ("retrieval", "retrieval_decoded", "qr_score", "razor_echo", "razor_induction")
COMPARED = ("retrieval", "retrieval_decoded", "qr_score", "razor_echo", "razor_induction")


def proportion(right: np.ndarray) -> Estimate:
    """Return a share of right answers with Wilson's interval.

    Args:
        right: `[n]` 0 or 1, n at least 1.
    """
    low, high = wilson(int(right.sum()), len(right))
    return Estimate(
        value=float(right.mean()), n=len(right), interval=Interval(low=low, high=high, method="Wilson over prompts")
    )


def cells(lengths: Sequence[int], depths: Sequence[float], answered: np.ndarray) -> tuple[NeedleCell, ...]:
    """Return the accuracy at every length and depth, in order.

    Args:
        lengths: of each prompt.
        depths: of each prompt.
        answered: `[P]` bool.
    """
    found = []
    for length, depth in sorted(set(zip(lengths, depths, strict=True))):
        own = [float(a) for n, d, a in zip(lengths, depths, answered, strict=True) if (n, d) == (length, depth)]
        found.append(NeedleCell(length=length, depth=depth, accuracy=proportion(np.array(own))))
    return tuple(found)


def head_rows(
    info: ModelInfo, statistics: Mapping[str, xr.Dataset], missing: Mapping[str, str]
) -> tuple[RetrievalHead, ...]:
    """Return every query head's measures.

    Args:
        info: the model.
        statistics: datasets that hold PER_PROMPT variables and those of vertical-and-slash patterns, where measured.
        missing: measure → why it was not measured.
    """
    held = {str(name): data[name] for data in statistics.values() for name in data.data_vars}
    rows = []
    for layer, head in info.heads:
        values = {}
        for name in PER_PROMPT:
            reason = missing.get(name, "no prompt could measure it")
            own = held[name].sel(layer=layer, head=head).values if name in held else np.zeros(0)
            values[name] = estimate(own, reason)
        pattern = held["pattern_mass"].sel(layer=layer, head=head) if "pattern_mass" in held else None
        best = None if pattern is None else int(pattern.mean("prompt").argmax("split"))
        rows.append(
            RetrievalHead(
                layer=layer,
                head=head,
                kv_head=info.kv_head(head),
                **values,
                vertical_slash_mass=estimate(
                    np.zeros(0) if pattern is None else pattern.isel(split=best).values,
                    missing.get("vertical_slash_mass", "not measured"),
                ),
                vertical_size=_size(held, "vertical_size", layer, head),
                slash_size=_size(held, "slash_size", layer, head),
            )
        )
    return tuple(rows)


def _size(held: Mapping[str, xr.DataArray], name: str, layer: int, head: int) -> int | None:
    return int(held[name].sel(layer=layer, head=head)) if name in held else None


def ranked(info: ModelInfo, scores: np.ndarray) -> list[HeadId]:
    """Return all heads with a score, the largest first.

    Args:
        info: the model.
        scores: `[P, L, H]`, NaN where missing.
    """
    if not len(scores) or np.isnan(scores).all():
        return []
    mean = np.nanmean(scores, axis=0)
    return [HeadId(info.attention_layers[row], head) for row, head in top_heads(mean, mean.size)]


def settled(scores: np.ndarray, k: int = 20) -> RankingStability | Missing:
    """Return how many trials the top heads need, or why that cannot be said; heads that never score have no rank."""
    scoring = int((np.nan_to_num(scores).sum(0) > 0).sum())
    if not scoring and len(scores):
        return Missing(reason="no head scored on any needle")
    found = stability(scores, k=min(k, max(1, scoring)))
    if found is None:
        return Missing(reason="fewer than two needles were answered")
    return RankingStability(k=found.k, trials=found.trials, overlap=found.overlap, low=found.low, settled=found.settled)


def agreements(rows: Sequence[RetrievalHead], k: int) -> tuple[RankingAgreement, ...]:
    """Compare the ranking by retrieval score with the ranking by every other measure, where both were measured."""
    from scipy.stats import spearmanr

    found = []
    first = _values(rows, COMPARED[0])
    for name in COMPARED[1:]:
        other = _values(rows, name)
        if np.isnan(first).any() or np.isnan(other).any():
            continue
        constant = np.ptp(first) == 0 or np.ptp(other) == 0
        tops = [set(top_heads(values[None], k)) for values in (first, other)]
        found.append(
            RankingAgreement(
                first=COMPARED[0],
                second=name,
                spearman=None if constant else float(spearmanr(first, other).statistic),
                k=k,
                common=len(tops[0] & tops[1]),
                expected=k * k / len(rows),
            )
        )
    return tuple(found)


def _values(rows: Sequence[RetrievalHead], name: str) -> np.ndarray:
    items = [getattr(row, name) for row in rows]
    return np.array([item.value if isinstance(item, Estimate) else np.nan for item in items])


def ablation_step(
    mode: str, heads: Sequence[HeadId], ablated: np.ndarray, controls: np.ndarray, whole: np.ndarray, matched: bool
) -> AblationStep:
    """Return one step of the curve.

    Args:
        mode: of ablation.
        heads: that were ablated.
        ablated: `[P]` accuracy without them.
        controls: `[draws, P]` accuracy without random others.
        whole: `[P]` accuracy of the whole model.
        matched: whether controls came from the same layers.
    """
    change = estimate(ablated - whole, "no prompts")
    assert isinstance(change, Estimate)
    return AblationStep(
        mode=mode,  # type: ignore[arg-type]
        heads=tuple(map(str, heads)),
        accuracy=proportion(ablated),
        change=change,
        control=estimate(controls.mean(0) if len(controls) else np.zeros(0), "too few other heads"),
        control_draws=tuple(float(v) for v in controls.mean(1)),
        layer_matched=matched,
    )


def budget_point(
    length: int,
    budget: float,
    full: Sequence[str],
    right: np.ndarray,
    whole: np.ndarray,
    random: np.ndarray,
    kept: float,
) -> BudgetPoint:
    """Return the accuracy with some KV heads full.

    Args:
        length: tokens a prompt.
        budget: share of KV heads that are full.
        full: their names.
        right: `[P]` 0 or 1 under our choice.
        whole: `[P]` with all full.
        random: `[draws, P]` under random choices of as many.
        kept: share of the cache that is kept, 0..1.
    """
    change = estimate(right - whole, "no prompts")
    assert isinstance(change, Estimate)
    draws = random.mean(1) if len(random) else np.zeros(0)
    return BudgetPoint(
        length=length,
        budget=budget,
        full=tuple(full),
        accuracy=proportion(right),
        change=change,
        control=estimate(draws, "no random choices"),
        control_draws=tuple(float(v) for v in draws),
        kept=kept,
    )
