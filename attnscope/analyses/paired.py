"""Paired comparisons over prompts: the mean difference with its interval, and its p-value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.errors import StatisticsError
from .intervals import bootstrap_mean

Test = Literal["sign-flip", "wilcoxon"]
EXACT = 12
"""Up to this many prompts all 2^n sign patterns are counted, above it they are drawn."""
_CHUNK = 512


@dataclass(frozen=True)
class Change:
    """A mean over prompts; `low` and `high` are NaN with fewer than two, `p` where no test was made."""

    value: float
    low: float
    high: float
    n: int
    p: float = float("nan")


def paired_change(before: np.ndarray, after: np.ndarray, resamples: int = 1000, seed: int = 0) -> Change:
    """Return the mean of after minus before with its bootstrap interval and two-sided sign-flip p-value.

    Args:
        before, after: `[prompts]` of the same prompts, NaN where missing in either.
        resamples: bootstrap draws.
        seed: of all draws.

    Raises:
        StatisticsError: different shapes, or no prompt was measured both times.

    Example:
        >>> found = paired_change(np.zeros(8), np.ones(8))
        >>> found.value, found.n, found.p
        (1.0, 8, 0.0078125)
    """
    same_prompts(before, after)
    gap = np.asarray(after, dtype=np.float64) - before
    gap = gap[~np.isnan(gap)]
    if not len(gap):
        raise StatisticsError("prompts measured before and after", found="none", expected="at least one")
    low, high = bootstrap_mean(gap, resamples=resamples, seed=seed)
    return Change(float(gap.mean()), float(low), float(high), len(gap), float(sign_flip(gap[:, None], seed=seed)[0]))


def p_values(differences: np.ndarray, test: Test = "sign-flip", seed: int = 0) -> np.ndarray:
    """Return the two-sided p-value of every column's paired differences.

    Args:
        differences: `[prompts, units]`, NaN where missing.
        test: `sign-flip` (permutation; its smallest value is 2 / 2^n, or 1e-4 above EXACT prompts) or `wilcoxon`
            (signed ranks, asymptotic above 50 prompts: for so many units that 1e-4 is too coarse for a correction).
        seed: of the sign-flip's draws.

    Returns:
        `[units]`, NaN where nothing was measured.

    Raises:
        StatisticsError: there is no such test.
    """
    if test == "sign-flip":
        return sign_flip(differences, seed=seed)
    if test == "wilcoxon":
        return signed_rank(differences)
    raise StatisticsError(f"test {test!r}", expected="sign-flip or wilcoxon")


def sign_flip(differences: np.ndarray, draws: int = 9999, seed: int = 0) -> np.ndarray:
    """Return how often random signs give a mean difference at least as far from 0 as the measured one.

    Exact over all sign patterns for up to EXACT prompts; otherwise (1 + hits) / (1 + draws).

    Args:
        differences: `[prompts, units]`, NaN where missing.
        draws: of sign patterns; the same ones serve every unit.
        seed: of the draws.

    Returns:
        `[units]`, NaN where nothing was measured.

    Example:
        >>> sign_flip(np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
        array([0.25, 1.  ])
    """
    n, units = differences.shape
    measured = ~np.isnan(differences)
    held = np.where(measured, differences, 0.0)
    exact = n <= EXACT
    if exact:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, (draws, n))
    found = np.full(units, np.nan)
    for start in range(0, units, _CHUNK):
        own = slice(start, start + _CHUNK)
        sums, least = np.abs(signs @ held[:, own]), np.abs(held[:, own].sum(0))
        slack = 1e-9 * np.abs(held[:, own]).sum(0)
        hits = (sums >= least - slack).sum(0)
        found[own] = hits / len(signs) if exact else (1 + hits) / (1 + draws)
    return np.where(measured.any(0), found, np.nan)


def signed_rank(differences: np.ndarray) -> np.ndarray:
    """Return Wilcoxon's signed-rank p-value of every column; 1 where no difference is other than 0.

    Args:
        differences: `[prompts, units]`, NaN where missing.

    Returns:
        `[units]`, NaN where nothing was measured.

    Example:
        >>> signed_rank(np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
        array([0.25, 1.  ])
    """
    from scipy.stats import wilcoxon

    found = np.full(differences.shape[1], np.nan)
    for unit, column in enumerate(differences.T):
        own = column[~np.isnan(column)]
        if len(own):
            found[unit] = wilcoxon(own[own != 0]).pvalue if own.any() else 1.0
    return found


def false_discovery(p: np.ndarray) -> np.ndarray:
    """Return Benjamini and Hochberg's q-values over all units that have a p-value; NaN stays NaN.

    Args:
        p: p-values of any shape.

    Example:
        >>> false_discovery(np.array([0.01, np.nan, 0.04, 0.03]))
        array([0.03,  nan, 0.04, 0.04])
    """
    from scipy.stats import false_discovery_control

    found, measured = np.full(p.shape, np.nan), ~np.isnan(p)
    if measured.any():
        found[measured] = false_discovery_control(p[measured])
    return found


def same_prompts(first: np.ndarray, second: np.ndarray) -> None:
    """Refuse two arrays that cannot be of the same prompts.

    Raises:
        StatisticsError: different shapes.
    """
    if np.shape(first) != np.shape(second):
        raise StatisticsError(
            "values of the same prompts", found=f"shapes {np.shape(first)} and {np.shape(second)}", expected="one shape"
        )
