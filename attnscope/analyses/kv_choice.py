"""Which KV heads keep their whole cache under a budget: from scores of heads to exactly so many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..core.errors import StatisticsError, TaskError

Reduction = Literal["max", "mean"]


def reduce_to_kv(values: np.ndarray, n_kv_heads: int, reduction: Reduction = "max") -> np.ndarray:
    """Return one value a KV head from those of the query heads that read it (2410.10819's granularity).

    Args:
        values: `[..., H]`; NaN where not measured.
        n_kv_heads: G, a divisor of H.
        reduction: over the H/G query heads of a group.

    Returns:
        `[..., G]`; NaN where any head of the group was not measured.

    Raises:
        StatisticsError: the heads do not divide over the KV heads, or an unknown reduction.

    Example:
        >>> reduce_to_kv(np.array([[0.1, 0.9, np.nan, 0.3]]), 2).tolist()
        [[0.9, nan]]
    """
    heads = values.shape[-1]
    if n_kv_heads < 1 or heads % n_kv_heads:
        raise StatisticsError(
            "scores of query heads", found=f"{heads} heads", expected=f"a multiple of {n_kv_heads} KV heads"
        )
    if reduction not in ("max", "mean"):
        raise StatisticsError("reduction to KV heads", found=repr(reduction), expected="'max' or 'mean'")
    groups = values.reshape(*values.shape[:-1], n_kv_heads, heads // n_kv_heads)
    return groups.max(-1) if reduction == "max" else groups.mean(-1)


def budget_count(budget: float, total: int) -> int:
    """Return how many of `total` KV heads stay full: round(budget · total), halves to the even number.

    Raises:
        TaskError: the budget is not within 0..1.

    Example:
        >>> budget_count(0.25, 32), budget_count(0.0625, 32)
        (8, 2)
    """
    if not 0 <= budget <= 1:
        raise TaskError(
            "budget of full KV heads", found=budget, expected="a share of all KV heads, 0 to 1", fix="Pass 0.25, say."
        )
    return round(budget * total)


def ranking(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Return all KV heads as flat indices, best first: by the first score, ties by the next, then by layer and head.

    Args:
        keys: `[L, G]` scores, the most important first; NaN (not measured) ranks last.

    Raises:
        StatisticsError: no scores, or scores of different shapes, or nothing was measured.

    Example:
        >>> ranking([np.array([[0.0, 1.0], [0.0, np.nan]]), np.array([[0.2, 0.0], [0.4, 0.9]])]).tolist()
        [1, 2, 0, 3]
    """
    shapes = {key.shape for key in keys}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise StatisticsError("scores of KV heads", found=f"shapes {sorted(shapes)}", expected="one shape [L, G]")
    if all(np.isnan(key).all() for key in keys):
        raise StatisticsError("scores of KV heads", found="none that was measured", expected="at least one")
    flat = [np.where(np.isnan(key), -np.inf, key).ravel() for key in keys]
    return np.lexsort([np.arange(flat[0].size), *(-key for key in reversed(flat))])


def full_under_budget(keys: Sequence[np.ndarray], budget: float) -> np.ndarray:
    """Return `[L, G]` bool: the best KV heads by `ranking`, exactly `budget_count` of them.

    Raises:
        TaskError: the budget is not within 0..1.
        StatisticsError: see `ranking`.

    Example:
        >>> full_under_budget([np.array([[0.1, 0.9], [0.5, 0.0]])], 0.5).tolist()
        [[False, True], [True, False]]
    """
    order = ranking(keys)
    full = np.zeros(order.size, dtype=bool)
    full[order[: budget_count(budget, order.size)]] = True
    return full.reshape(keys[0].shape)


def rank_values(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Return `[L, G]` values in 0..1 without ties, in the order of `ranking`: the best KV head has 1, the last 1/(L·G).

    What reads a pattern and cuts it at a quantile (DuoAttention 2410.10819, kvpress) then keeps the same heads full as
    `full_under_budget`; sorting tied values is not stable everywhere.

    Raises:
        StatisticsError: see `ranking`.

    Example:
        >>> rank_values([np.array([[0.0, 0.9], [0.5, 0.0]])]).tolist()
        [[0.5, 1.0], [0.75, 0.25]]
    """
    order = ranking(keys)
    values = np.empty(order.size)
    values[order] = 1 - np.arange(order.size) / order.size
    return values.reshape(keys[0].shape)
