"""Sets of heads: the best by a score, and those that RazorAttention and LycheeDecode keep whole."""

from __future__ import annotations

import numpy as np

from ..core.errors import StatisticsError
from .hardkuma import class_statistic
from .kv_choice import reduce_to_kv


def top_mask(values: np.ndarray, k: int) -> np.ndarray:
    """Return which `k` heads have the largest values; of equal ones the earlier layer, then head, comes first.

    Args:
        values: `[L, H]`, NaN where missing (never chosen).
        k: heads to choose.

    Raises:
        StatisticsError: fewer than `k` heads have a value.

    Example:
        >>> top_mask(np.array([[0.5, 0.1], [np.nan, 0.5]]), 1)
        array([[ True, False],
               [False, False]])
    """
    flat = values.ravel()
    measured = int((~np.isnan(flat)).sum())
    if not 0 <= k <= measured:
        raise StatisticsError("heads to choose", found=k, expected=f"0 to {measured}, the heads that have a score")
    chosen = np.zeros(flat.size, dtype=bool)
    chosen[np.argsort(np.where(np.isnan(flat), np.inf, -flat), kind="stable")[:k]] = True
    return chosen.reshape(values.shape)


def razor_protected(echo: np.ndarray, induction: np.ndarray, n_kv_heads: int) -> np.ndarray:
    """Return the KV heads that RazorAttention keeps whole: the top 14% by induction and the top 1% by echo.

    Shares are of all KV heads, rounded, at least one; a KV head's score is its query heads' largest (2407.15891).

    Args:
        echo, induction: `[L, H]`.
        n_kv_heads: G.

    Raises:
        StatisticsError: a head has no score, or the heads do not divide over the KV heads.

    Example:
        >>> razor_protected(np.eye(4), np.eye(4)[::-1], 4).sum()
        np.int64(3)
    """
    chosen = np.zeros((echo.shape[0], n_kv_heads), dtype=bool)
    for values, share in ((induction, 0.14), (echo, 0.01)):
        reduced = reduce_to_kv(values, n_kv_heads)
        chosen |= top_mask(reduced, max(1, round(share * reduced.size)))
    return chosen


def lychee_retrieval(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return LycheeDecode's retrieval heads: class statistic above 0.5, and all of layer 0 (2602.04541).

    Args:
        a, b: `[L, G]`.

    Example:
        >>> lychee_retrieval(np.ones((2, 1)), np.array([[9.0], [0.5]]))
        array([[ True],
               [ True]])
    """
    chosen = class_statistic(a, b) > 0.5
    chosen[0] = True
    return chosen
