"""The decode plan of a report: by what every head needs, or the best KV heads under a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import xarray as xr

from ..analyses.decode_roles import BUDGET_RULE, RULE, decode_role, kept_mass
from ..analyses.kv_choice import budget_count, ranking, reduce_to_kv
from ..core.errors import StatisticsError
from ..core.model_info import ModelInfo
from ..core.names import ScoreName
from ..core.report import DecodePlan, HeadRecord, KVHeadRecord, Measured

SINK_TOKENS, RECENT_TOKENS, LEAST_KEPT = 4, 64, 0.9
RANKED_BY: Final[tuple[ScoreName, ...]] = ("retrieval", "induction")
"""Scores that rank KV heads under a budget, each the largest of the group; the second breaks ties of the first."""


def plan_by_need(info: ModelInfo, records: Sequence[HeadRecord], text: xr.Dataset | None) -> DecodePlan:
    """Return the plan in which a KV head streams only where nothing speaks against it; see `decode_roles.RULE`.

    Args:
        info: the model.
        records: every query head, with its labels.
        text: statistics of the text prompts, for attention by distance; None where there are none.
    """
    kept = {record.id: _kept(record, text) for record in records}
    kv_heads = []
    for layer, kv_head in _kv_heads(info):
        group = [r for r in records if (r.layer, r.kv_head) == (layer, kv_head)]
        role, reason = decode_role(
            [{label.name for label in r.labels} for r in group], [kept[r.id] for r in group], LEAST_KEPT
        )
        kv_heads.append(KVHeadRecord(layer=layer, kv_head=kv_head, role=role, reason=reason))  # type: ignore[arg-type]
    return _plan(RULE.format(share=LEAST_KEPT, recent=RECENT_TOKENS), kv_heads)


def plan_under_budget(info: ModelInfo, records: Sequence[HeadRecord], budget: float) -> DecodePlan:
    """Return the plan that keeps round(budget · L · G) KV heads full, the best by RANKED_BY.

    Raises:
        TaskError: the budget is not within 0..1.
        StatisticsError: neither score was measured.
    """
    scores = kv_scores(info, records)
    order = ranking(list(scores.values()))
    count, total = budget_count(budget, order.size), order.size
    kv_heads = {}
    for rank, flat in enumerate(order.tolist()):
        row, kv_head = divmod(flat, info.n_kv_heads)
        values = [f"{name} {table[row, kv_head]:.3g}" for name, table in scores.items()]
        layer = info.attention_layers[row]
        kv_heads[layer, kv_head] = KVHeadRecord(
            layer=layer,
            kv_head=kv_head,
            role="full" if rank < count else "streaming",
            reason=f"rank {rank + 1} of {total}: {', '.join(values)}",
        )
    rule = BUDGET_RULE.format(count=count, total=total, budget=budget, scores=", then by ".join(scores))
    return _plan(rule, [kv_heads[key] for key in _kv_heads(info)])


def kv_scores(info: ModelInfo, records: Sequence[HeadRecord]) -> dict[str, np.ndarray]:
    """Return score → `[L, G]` of KV heads, by RANKED_BY in this order; scores never measured are left out.

    Raises:
        StatisticsError: neither was measured.
    """
    found: dict[str, np.ndarray] = {}
    for name in RANKED_BY:
        table = np.full((len(info.attention_layers), info.n_heads), np.nan)
        for record in records:
            item = record.scores.get(name)
            if isinstance(item, Measured):
                table[info.rows[record.layer], record.head] = item.value
        if not np.isnan(table).all():
            found[name] = reduce_to_kv(table, info.n_kv_heads)
    if not found:
        raise StatisticsError(
            f"decode plan of {info.model_id} under a budget",
            found=f"no measured {' or '.join(RANKED_BY)}",
            expected="at least one, to rank KV heads by",
            fix="Measure needles that the model answers, or repeats.",
        )
    return found


def _kept(record: HeadRecord, text: xr.Dataset | None) -> float:
    first = record.scores["first_token_mass"]
    if text is None or "mass_by_distance" not in text or not isinstance(first, Measured):
        return float("nan")
    profile = text.mass_by_distance.sel(layer=record.layer, head=record.head)
    near = dict(zip(profile.distance_bin.values.tolist(), profile.values.tolist(), strict=True))
    return kept_mass(first.value, near, RECENT_TOKENS)


def _kv_heads(info: ModelInfo) -> list[tuple[int, int]]:
    return [(layer, kv_head) for layer in info.attention_layers for kv_head in range(info.n_kv_heads)]


def _plan(rule: str, kv_heads: Sequence[KVHeadRecord]) -> DecodePlan:
    return DecodePlan(
        rule=rule,
        sink_tokens=SINK_TOKENS,
        recent_tokens=RECENT_TOKENS,
        full_fraction=sum(item.role == "full" for item in kv_heads) / len(kv_heads),
        kv_heads=tuple(kv_heads),
    )
