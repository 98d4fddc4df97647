"""What gates say: which KV heads stay full within a budget, and how far two measures of heads agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from ..core.errors import StatisticsError

Reduction = Literal["max", "mean"]


def full_heads(gates: ArrayLike, budget: float) -> np.ndarray:
    """Return the heads that stay full: the `round(budget · L · G)` with the largest gates (2410.10819).

    The count is exact (a half is rounded to even). Of equal gates the lower layer goes first, then the lower head.

    Args:
        gates: `[L, G]`, any finite measure that is larger for heads that need the context.
        budget: share of heads that stay full, 0..1.

    Returns:
        `[L, G]` bool.

    Raises:
        StatisticsError: gates that are missing or not two-dimensional, or a budget outside 0..1.

    Example:
        >>> full_heads([[0.2, 0.9], [0.9, 0.1]], budget=0.25).tolist()
        [[False, True], [False, False]]
    """
    values = _finite(gates)
    if not 0 <= budget <= 1:
        raise StatisticsError("budget of full heads", found=budget, expected="a share, 0 to 1")
    order = np.argsort(-values.ravel(), kind="stable")
    chosen = np.zeros(values.size, dtype=bool)
    chosen[order[: round(budget * values.size)]] = True
    return chosen.reshape(values.shape)


def roles(gates: ArrayLike, budget: float) -> list[list[str]]:
    """Return `full` or `streaming` for each head; arguments and errors as in `full_heads`.

    Example:
        >>> roles([[0.2, 0.9]], budget=0.5)
        [['streaming', 'full']]
    """
    return [["full" if full else "streaming" for full in row] for row in full_heads(gates, budget)]


def per_kv_head(scores: ArrayLike, n_kv_heads: int, reduction: Reduction = "max") -> np.ndarray:
    """Reduce scores of query heads to their KV heads.

    Args:
        scores: `[L, H]`; NaN marks a head that was not measured, and its group is then NaN too.
        n_kv_heads: G, a divisor of H.
        reduction: over the H/G query heads of a group.

    Returns:
        `[L, G]`.

    Raises:
        StatisticsError: H does not divide over G, or an unknown reduction.

    Example:
        >>> per_kv_head([[0.1, 0.3, 0.0, 0.2]], 2).tolist()
        [[0.3, 0.2]]
    """
    values = np.asarray(scores, dtype=float)
    if values.ndim != 2 or n_kv_heads < 1 or values.shape[1] % n_kv_heads:
        raise StatisticsError("scores of query heads", found=values.shape, expected=f"[L, multiple of {n_kv_heads}]")
    if reduction not in ("max", "mean"):
        raise StatisticsError("reduction to KV heads", found=repr(reduction), expected="'max' or 'mean'")
    groups = values.reshape(values.shape[0], n_kv_heads, -1)
    return groups.max(-1) if reduction == "max" else groups.mean(-1)


@dataclass(frozen=True)
class Agreement:
    """How far two measures of the same heads agree.

    Attributes:
        spearman: rank correlation, -1..1; NaN where one of them is the same for every head.
        overlap: share of the `top` largest of one that are among the `top` largest of the other, 0..1.
        expected: that share for two unrelated measures, top / heads.
        top: how many heads are compared.
        heads: heads that both measured.
    """

    spearman: float
    overlap: float
    expected: float
    top: int
    heads: int


def agreement(first: ArrayLike, second: ArrayLike, top: int = 8) -> Agreement:
    """Compare two measures of the same heads; heads that either did not measure (NaN) are left out.

    Args:
        first: any shape.
        second: the same shape.
        top: heads of the overlap; ties go to the earlier head, as in `full_heads`.

    Raises:
        StatisticsError: shapes differ, or fewer than `top` heads were measured, or `top` is below 1.

    Example:
        >>> agreement([0.1, 0.5, 0.9, 0.2], [1, 3, 4, 2], top=2)
        Agreement(spearman=1.0, overlap=1.0, expected=0.5, top=2, heads=4)
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if one.shape != two.shape:
        raise StatisticsError("two measures of heads", found=f"{one.shape} and {two.shape}", expected="one shape")
    measured = ~(np.isnan(one) | np.isnan(two))
    one, two = one[measured], two[measured]
    if not 1 <= top <= one.size:
        raise StatisticsError("top heads to compare", found=top, expected=f"1 to the {one.size} heads measured by both")
    constant = any(bool((x == x[0]).all()) for x in (one, two))
    spearman = math.nan if constant else round(float(spearmanr(one, two).statistic), 12)
    best = [set(_largest(x, top)) for x in (one, two)]
    return Agreement(spearman, len(best[0] & best[1]) / top, top / one.size, top, one.size)


def _largest(values: np.ndarray, top: int) -> Sequence[int]:
    return np.argsort(-values, kind="stable")[:top].tolist()


def _finite(gates: ArrayLike) -> np.ndarray:
    values = np.asarray(gates, dtype=float)
    if values.ndim != 2 or not np.isfinite(values).all():
        found = f"shape {values.shape}" if values.ndim != 2 else f"{int((~np.isfinite(values)).sum())} without a number"
        raise StatisticsError("gates", found=found, expected="a finite number for each layer and head [L, G]")
    return values
