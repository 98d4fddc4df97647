"""From scores of query heads to the scores by which KV heads are kept full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..analyses.kv_choice import group_max
from ..core.errors import StatisticsError
from ..core.report import Measured

if TYPE_CHECKING:
    from ..core.report import HeadReport

RANKED_BY = ("retrieval", "induction")
"""Scores that rank KV heads, each the largest of the group; the second breaks ties of the first."""


def scores_of(report: HeadReport) -> list[np.ndarray]:
    """Return `[L, G]` scores of KV heads, by RANKED_BY in this order; those that were not measured at all are left out.

    Raises:
        StatisticsError: neither was measured.
    """
    info = report.model
    found = []
    for name in RANKED_BY:
        table = np.full((len(info.attention_layers), info.n_heads), np.nan)
        for record in report.records:
            item = record.scores.get(name)  # type: ignore[call-overload]
            if isinstance(item, Measured):
                table[info.rows[record.layer], record.head] = item.value
        if not np.isnan(table).all():
            found.append(group_max(table, info.n_kv_heads))
    if not found:
        raise StatisticsError(
            f"report on {info.model_id}",
            found=f"no measured {' or '.join(RANKED_BY)}",
            expected="at least one, to rank KV heads by",
            fix="Make the report with needles that the model answers, or with repeats.",
        )
    return found
