"""Bootstrap intervals of means over prompts."""

from __future__ import annotations

import numpy as np


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
    n = values.shape[0]
    flat = values.reshape(n, -1)
    measured = ~np.isnan(flat)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    total, count = draws @ np.where(measured, flat, 0.0), draws @ measured
    means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    enough = measured.sum(0) >= 2
    tail = (1 - level) / 2
    bounds = np.full((2, flat.shape[1]), np.nan)
    if enough.any():
        bounds[:, enough] = np.nanquantile(means[:, enough], [tail, 1 - tail], axis=0)
    return bounds[0].reshape(values.shape[1:]), bounds[1].reshape(values.shape[1:])
