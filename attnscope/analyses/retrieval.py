"""What retrieval scores over trials say: the ranking, and how many trials it needs to settle (2404.15574)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SETTLED = 0.9
"""A ranking has settled where its top heads share this much with those of all trials."""


@dataclass(frozen=True)
class Stability:
    """How the top heads of n trials agree with those of all trials.

    Attributes:
        k: heads compared.
        trials: n.
        overlap: mean share of the top k in common, over random orders of the trials, 0..1.
        low: 5% quantile over the orders.
        settled: trials from which on the mean overlap stays at SETTLED or above.
    """

    k: int
    trials: tuple[int, ...]
    overlap: tuple[float, ...]
    low: tuple[float, ...]
    settled: int


def top_heads(scores: np.ndarray, k: int) -> list[tuple[int, int]]:
    """Return the k heads with the largest scores, largest first; ties go to the earlier head, NaN is left out.

    Args:
        scores: `[L, H]`.
        k: heads at most.

    Example:
        >>> top_heads(np.array([[0.1, 0.9], [0.9, np.nan]]), 2)
        [(0, 1), (1, 0)]
    """
    flat = scores.ravel()
    order = np.argsort(-np.where(np.isnan(flat), -np.inf, flat), kind="stable")[:k]
    return [(int(i) // scores.shape[1], int(i) % scores.shape[1]) for i in order if not np.isnan(flat[i])]


def stability(scores: np.ndarray, k: int = 20, orders: int = 50, seed: int = 0) -> Stability | None:
    """Return how many trials the top k need to settle; None with fewer than two measured trials.

    The last point compares all trials with themselves and is 1; what matters is how early the curve is near it.

    Args:
        scores: `[P, L, H]` of P trials; a trial that is NaN everywhere does not count.
        k: heads, at most half of all.
        orders: random orders of the trials.
        seed: of the orders.

    Example:
        >>> steady = np.tile(np.arange(8.0).reshape(1, 2, 4), (5, 1, 1))
        >>> stability(steady, k=2).settled
        1
    """
    flat = scores.reshape(len(scores), int(np.prod(scores.shape[1:])))
    measured = flat[~np.isnan(flat).all(1)]
    n, heads = measured.shape if measured.size else (0, 0)
    if n < 2:
        return None
    k = max(1, min(k, heads // 2))
    whole = _tops(np.nanmean(measured, axis=0)[None], k)[0]
    rng = np.random.default_rng(seed)
    shares = np.empty((orders, n))
    for i in range(orders):
        rows = np.nan_to_num(measured[rng.permutation(n)])
        means = rows.cumsum(0) / np.arange(1, n + 1)[:, None]
        shares[i] = [np.isin(top, whole).mean() for top in _tops(means, k)]
    mean = shares.mean(0)
    below = np.nonzero(mean < SETTLED)[0]
    return Stability(
        k=k,
        trials=tuple(range(1, n + 1)),
        overlap=tuple(float(v) for v in mean),
        low=tuple(float(v) for v in np.minimum(np.quantile(shares, 0.05, axis=0), mean)),
        settled=int(below[-1]) + 2 if len(below) else 1,
    )


def _tops(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
