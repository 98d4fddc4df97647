"""The pattern by distance that is nearest to a head's own."""

from __future__ import annotations

import numpy as np

STEPS = 200
ENOUGH = 1e-7
"""Relative change of every weight below which the fit ends."""


def distance_weights(
    mass: np.ndarray, sink: np.ndarray, keys: np.ndarray, queries: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights w(d), one a bin of distances, whose rows have the least mean KL from a head's rows.

    A row that sees n keys is w(d) over d < n, divided by their sum. The least KL(row ‖ static row) satisfies
    w_b = mass_b / Σ over rows (pairs of the row in b / its sum); each step puts the last sums in (an MM algorithm).
    Attention that is a softmax of distance alone comes back as it is.

    Args:
        mass: `[H, bins]` attention in each bin, summed over the rows.
        sink: `[H]` attention to no key, summed over the rows.
        keys: `[n]` numbers of visible keys, the query's own included.
        queries: `[n]` rows that see so many.
        edges: `[bins + 1]`, tokens.

    Returns:
        tuple[np.ndarray, np.ndarray]: `[H, bins]` and, for no key, `[H]`; the largest of a head is 1, and weights of
        bins that no row sees are 0.

    Example:
        >>> weights, _ = distance_weights(
        ...     np.array([[1 + 1 / 2 + 1 / 3, 1 / 2 + 1 / 3, 1 / 3]]), np.zeros(1),
        ...     np.array([1, 2, 3]), np.ones(3), np.array([0, 1, 2, 3]))
        >>> weights.round(5).tolist()
        [[1.0, 1.0, 1.0]]
    """
    pairs = np.clip(keys[:, None] - edges[:-1], 0, np.diff(edges)).astype(float)
    counted = (pairs * queries[:, None]).sum(0)
    weights = np.divide(mass, counted, out=np.zeros_like(mass, dtype=float), where=counted > 0)
    base = sink / queries.sum()
    for _ in range(STEPS):
        sums = np.maximum(weights @ pairs.T + base[:, None], np.finfo(float).tiny)
        rates = queries / sums
        new = np.divide(mass, rates @ pairs, out=np.zeros_like(weights), where=counted > 0)
        base_new = sink / rates.sum(1)
        largest = np.maximum(np.maximum(new.max(1), base_new), np.finfo(float).tiny)
        new, base_new = new / largest[:, None], base_new / largest
        moved = np.abs(new - weights).max(), np.abs(base_new - base).max()
        weights, base = new, base_new
        if max(moved) < ENOUGH:
            break
    return weights, base
