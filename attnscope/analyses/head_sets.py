"""Sets of heads: the best by a score, a budget of KV heads, query heads reduced to KV heads; and Kumaraswamy gates."""

from __future__ import annotations

import numpy as np
from scipy.special import betaln

from ..core.errors import StatisticsError


def reduce_to_kv(values: np.ndarray, n_kv_heads: int) -> np.ndarray:
    """Return the largest value of each KV head's query heads; missing where any of them is missing.

    Args:
        values: `[L, H]`, NaN where missing.
        n_kv_heads: G, a divisor of H.

    Returns:
        `[L, G]`.

    Raises:
        StatisticsError: the heads do not divide over the KV heads.

    Example:
        >>> reduce_to_kv(np.array([[0.1, 0.9, np.nan, 0.2]]), 2)
        array([[0.9, nan]])
    """
    layers, heads = values.shape
    if n_kv_heads < 1 or heads % n_kv_heads:
        raise StatisticsError("query heads", found=heads, expected=f"a multiple of {n_kv_heads} KV heads")
    return values.reshape(layers, n_kv_heads, -1).max(axis=2)


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


def budget_mask(values: np.ndarray, budget: float) -> np.ndarray:
    """Return which heads a budget keeps: exactly round(budget · L · G), the largest first.

    Args:
        values: `[L, G]`.
        budget: share of heads, 0..1.

    Raises:
        StatisticsError: the budget is no share, or a head has no value.

    Example:
        >>> int(budget_mask(np.arange(8.0).reshape(2, 4), 0.25).sum())
        2
    """
    if not 0 <= budget <= 1:
        raise StatisticsError("budget", found=budget, expected="a share of KV heads, 0 to 1")
    if np.isnan(values).any():
        layer, head = np.argwhere(np.isnan(values))[0]
        raise StatisticsError(f"layer {layer}, head {head}", found="no score", expected="a score for every head")
    return top_mask(values, round(budget * values.size))


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


def kumaraswamy_mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return b·B(1 + 1/a, b), the mean of a Kumaraswamy variable (2602.04541 classifies heads by it).

    Args:
        a, b: shape parameters, above 0.

    Raises:
        StatisticsError: a parameter is not above 0.

    Example:
        >>> kumaraswamy_mean(np.array([1.0, 2.0]), np.array([1.0, 1.0])).round(4)
        array([0.5   , 0.6667])
    """
    if not ((a > 0) & (b > 0)).all():
        raise StatisticsError("Kumaraswamy parameters", found="a value of 0 or less", expected="values above 0")
    return np.exp(np.log(b) + betaln(1 + 1 / a, b))


def lychee_retrieval(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return LycheeDecode's retrieval heads: Kumaraswamy mean above 0.5, and all of layer 0 (2602.04541).

    Args:
        a, b: `[L, G]`.

    Example:
        >>> lychee_retrieval(np.ones((2, 1)), np.array([[9.0], [0.5]]))
        array([[ True],
               [ True]])
    """
    chosen = kumaraswamy_mean(a, b) > 0.5
    chosen[0] = True
    return chosen
