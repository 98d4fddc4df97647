"""Static rows: attention that depends on distance alone, with a weight that is constant within a bin of distances."""

from __future__ import annotations

import numpy as np

EXPLICIT = 16
"""Terms of a sum of logarithms that are added one by one, before Stirling's series serves the rest to 1e-12."""


def pairs_in_bins(edges: np.ndarray, lengths: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return how many (query, key) pairs stand at a distance in each bin, `[bins]`, over all prompts.

    Args:
        edges: `[bins + 1]`, tokens.
        lengths: `[P]` queries of each prompt.
        keys: `[P]` the most keys that a query of it sees: its length, or the window.

    Example:
        >>> pairs_in_bins(np.array([0, 1, 3]), np.array([3]), np.array([3]))
        array([3., 3.])
    """
    low = edges[:-1].astype(float)
    high = np.minimum(edges[1:], keys[:, None]).clip(low)
    return ((high - low) * lengths[:, None] - (high * (high - 1) - low * (low - 1)) / 2).sum(0)


def summed_log_totals(
    weights: np.ndarray, edges: np.ndarray, lengths: np.ndarray, keys: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """Return Σ over queries of log W(visible keys), `[H]`, where W(n) = base + Σ over distances d < n of w(d).

    Args:
        weights: `[H, bins]` w of each bin.
        edges: `[bins + 1]`.
        lengths: `[P]`.
        keys: `[P]`, as in `pairs_in_bins`: the visible keys of a prompt's queries are 1, 2, …, keys, keys, …
        base: `[H]`.
    """
    width = np.diff(edges)
    total = np.concatenate([np.zeros_like(base[:, None]), (weights * width).cumsum(1)], 1) + base[:, None]
    total = np.maximum(total, np.finfo(float).tiny)
    whole = np.zeros_like(total)
    whole[:, 1:] = sum_of_logs(total[:, :-1], weights, width).cumsum(1)
    (lengths, keys), prompts = np.unique(np.stack([lengths, keys]), axis=1, return_counts=True)
    last = np.searchsorted(edges[1:-1], keys, side="right")
    inside = keys - edges[last]
    upto = whole[:, last] + sum_of_logs(total[:, last], weights[:, last], inside)
    final = np.log(total[:, last] + weights[:, last] * inside)
    return (upto + (lengths - keys) * final) @ prompts


def sum_of_logs(start: np.ndarray, slope: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return Σ for k = 1..steps of log(start + k·slope), in a time that does not grow with `steps`.

    Args:
        start: above 0.
        slope: 0 or above.
        steps: whole numbers; all three broadcast.

    Example:
        >>> float(np.exp(sum_of_logs(np.array(1e-300), np.array(1.0), np.array(5))).round(9))
        120.0
    """
    shape = np.broadcast_shapes(start.shape, slope.shape, steps.shape)
    start, slope, steps = (np.broadcast_to(x, shape).astype(float) for x in (start, slope, steps))
    result = np.zeros(shape)
    for k in range(1, EXPLICIT + 1):
        result += np.where(k <= steps, np.log(start + k * slope), 0.0)
    m = np.maximum(steps - EXPLICIT, 0.0)
    first, beyond = start + (EXPLICIT + 1) * slope, start + (EXPLICIT + 1 + m) * slope
    growth = m * slope / first
    logs = np.log1p(growth)
    ratio = np.divide(logs, growth, out=np.ones(shape), where=growth > 0)
    u, v = slope / first, slope / beyond
    series = (v - u) / 12 - (v**3 - u**3) / 360 + (v**5 - u**5) / 1260
    return result + m * np.log(beyond) + m * (ratio - 1) - logs / 2 + series
