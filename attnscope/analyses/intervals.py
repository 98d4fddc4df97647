"""Intervals: bootstrap of means over prompts, Wilson of proportions."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np

from ..core.errors import StatisticsError


def bootstrap_mean(
    values: np.ndarray, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap interval of the mean over the first axis.

    Args:
        values: `[prompts, ...]`; NaN marks a missing prompt, which is left out of its resample's mean.
        level: coverage, 0..1.
        resamples: bootstrap draws.
        seed: of the draws; the same draws serve every column.

    Returns:
        Two arrays of the remaining shape; NaN where fewer than two prompts were measured.

    Example:
        >>> low, high = bootstrap_mean(np.array([0.0, 1.0, 0.0, 1.0]))
        >>> bool(0 <= low < 0.5 < high <= 1)
        True
    """
    flat = values.reshape(values.shape[0], -1)
    measured = ~np.isnan(flat)
    means = resampled_means(flat, resamples, seed)
    enough = measured.sum(0) >= 2
    tail = (1 - level) / 2
    bounds = np.full((2, flat.shape[1]), np.nan)
    if enough.any():
        bounds[:, enough] = np.nanquantile(means[:, enough], [tail, 1 - tail], axis=0)
    return bounds[0].reshape(values.shape[1:]), bounds[1].reshape(values.shape[1:])


def resampled_means(values: np.ndarray, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Return the mean over the first axis of each bootstrap resample.

    Args:
        values: `[prompts, columns]`; NaN marks a missing prompt, which is left out of its resample's mean.
        resamples: R.
        seed: of the draws; the same draws serve every column.

    Returns:
        `[R, columns]`, NaN where a resample holds no measured prompt.

    Example:
        >>> resampled_means(np.array([[2.0], [2.0]]), resamples=2)
        array([[2.],
               [2.]])
    """
    n, measured = len(values), ~np.isnan(values)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    total, count = draws @ np.where(measured, values, 0.0), draws @ measured
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; unlike a bootstrap, it does not vanish at 0 of n or n of n.

    Raises:
        StatisticsError: no trials, or more right answers than trials.

    Example:
        >>> [round(x, 3) for x in wilson(40, 40)]
        [0.912, 1.0]
    """
    if n < 1 or not 0 <= right <= n:
        raise StatisticsError("right answers", found=f"{right} of {n}", expected="0 to n of at least one")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
