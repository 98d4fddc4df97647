"""Two scores of the same heads: overlap of their sets against chance, rank correlation, agreement of labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom, kendalltau, rankdata

from ..core.errors import StatisticsError


@dataclass(frozen=True)
class Overlap:
    """How many heads two sets share, and how many they would share by chance.

    The chance laws are exact, not sampled: `expected` and `p_value` over every placing of as many heads anywhere,
    `layer_expected` and `layer_p_value` over every placing that keeps how many heads each layer holds.

    Attributes:
        heads: heads that could be in either set.
        first, second: sizes of the sets.
        shared: heads in both.
        jaccard: shared over heads in either; None where both sets are empty.
        p_value, layer_p_value: probability of at least so many shared heads.
    """

    heads: int
    first: int
    second: int
    shared: int
    jaccard: float | None
    expected: float
    p_value: float
    layer_expected: float
    layer_p_value: float


@dataclass(frozen=True)
class Correlation:
    """Rank correlations over heads, each with a percentile bootstrap interval over heads where one was asked for.

    A correlation is None where one of the scores is the same for every head.
    """

    heads: int
    spearman: float | None
    spearman_interval: tuple[float, float] | None
    kendall: float | None
    kendall_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Agreement:
    """Two yes-or-no labels of the same heads; `kappa` is Cohen's, None where both say the same of every head."""

    heads: int
    first: int
    second: int
    both: int
    kappa: float | None


def overlap(first: np.ndarray, second: np.ndarray, measured: np.ndarray | None = None) -> Overlap:
    """Compare two sets of heads.

    Args:
        first, second: bool `[L, H]`.
        measured: bool `[L, H]`, heads that could be in both; None means all. Others are left out of the sets.

    Raises:
        StatisticsError: different shapes, or no head was measured.

    Example:
        >>> a = np.array([[True, False], [True, False]])
        >>> found = overlap(a, a)
        >>> found.shared, found.expected, round(found.p_value, 4), found.layer_expected
        (2, 1.0, 0.1667, 1.0)
    """
    _same_shape(first, second)
    open_ = np.ones(first.shape, dtype=bool) if measured is None else measured
    a, b = first & open_, second & open_
    n, k, m, shared = (int(x.sum()) for x in (open_, a, b, a & b))
    if not n:
        raise StatisticsError("heads measured on both sides", found="none", expected="at least one")
    law, layer_expected = np.ones(1), 0.0
    for row, row_a, row_b in zip(open_, a, b, strict=True):
        held, x, y = int(row.sum()), int(row_a.sum()), int(row_b.sum())
        if held:
            law = np.convolve(law, hypergeom.pmf(np.arange(min(x, y) + 1), held, x, y))
            layer_expected += x * y / held
    union = int((a | b).sum())
    return Overlap(
        heads=n,
        first=k,
        second=m,
        shared=shared,
        jaccard=shared / union if union else None,
        expected=k * m / n,
        p_value=float(min(1.0, hypergeom.sf(shared - 1, n, k, m))),
        layer_expected=layer_expected,
        layer_p_value=float(min(1.0, law[shared:].sum())),
    )


def correlate(
    first: np.ndarray, second: np.ndarray, resamples: int = 0, level: float = 0.95, seed: int = 0
) -> Correlation:
    """Return rank correlations over the heads that both scores have.

    Args:
        first, second: `[L, H]`, NaN where missing.
        resamples: bootstrap draws over heads; 0 gives no intervals.
        level: coverage, 0..1.
        seed: of the draws.

    Raises:
        StatisticsError: different shapes, or fewer than three heads have both scores.

    Example:
        >>> a = np.arange(6.0).reshape(2, 3)
        >>> found = correlate(a, a ** 3)
        >>> round(found.spearman, 6), round(found.kendall, 6)
        (1.0, 1.0)
    """
    _same_shape(first, second)
    both = ~(np.isnan(first) | np.isnan(second))
    x, y = first[both], second[both]
    if len(x) < 3:
        raise StatisticsError("heads with both scores", found=len(x), expected="at least 3")
    kendall = float(kendalltau(x, y).statistic) if np.ptp(x) and np.ptp(y) else None
    spearman = _finite(_spearman(x[None], y[None])[0])
    if not resamples or spearman is None:
        return Correlation(len(x), spearman, None, kendall, None)
    draws = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    rho = _spearman(x[draws], y[draws])
    tau = np.array([kendalltau(x[draw], y[draw]).statistic for draw in draws if np.ptp(x[draw]) and np.ptp(y[draw])])
    return Correlation(len(x), spearman, _interval(rho, level), kendall, _interval(tau, level))


def agree(first: np.ndarray, second: np.ndarray) -> Agreement:
    """Return the agreement of two labels on the same heads (Cohen's kappa).

    Args:
        first, second: bool, the same shape.

    Raises:
        StatisticsError: different shapes, or no heads.

    Example:
        >>> agree(np.array([True, True, False, False]), np.array([True, False, False, False])).kappa
        0.5
    """
    _same_shape(first, second)
    n, k, m, both = first.size, int(first.sum()), int(second.sum()), int((first & second).sum())
    if not n:
        raise StatisticsError("heads", found="none", expected="at least one")
    observed = (n - k - m + 2 * both) / n
    chance = (k * m + (n - k) * (n - m)) / n**2
    return Agreement(n, k, m, both, None if chance == 1 else (observed - chance) / (1 - chance))


def tied_at_cut(values: np.ndarray, chosen: np.ndarray) -> int:
    """Return how many heads outside a set have the value of its last one, so that another order would change it.

    Example:
        >>> tied_at_cut(np.array([[0.5, 0.5, 0.1]]), np.array([[True, False, False]]))
        1
    """
    return int((values[~chosen] == values[chosen].min()).sum()) if chosen.any() else 0


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlate each row of `x` with that of `y`, NaN where a row is constant."""
    a, b = rankdata(x, axis=1), rankdata(y, axis=1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)


def _interval(values: np.ndarray, level: float) -> tuple[float, float] | None:
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _same_shape(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape:
        raise StatisticsError(
            "heads to compare", found=f"shapes {first.shape} and {second.shape}", expected="one shape"
        )
