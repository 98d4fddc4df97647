"""Functions of distance that rotary pairs can express: query coefficients by linear programming."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.optimize import linprog

from attnscope.core.errors import ModelError

CONTENT_PAIRS = 18  # slowest pairs of a head: 16 for a 32-dimensional code, 1 for style, 1 for two flags
MAX_ANGLE = 0.2  # radians that the fastest content pair turns over the whole context
SELF_DEPTH = 1.5


def rope_theta(head_dim: int, context_length: int) -> float:
    """Return the rotary base at which the content pairs turn by at most `MAX_ANGLE` over the context.

    Example:
        >>> 2.9e8 < rope_theta(64, 1024) < 3.1e8
        True
    """
    pairs = head_dim // 2 - CONTENT_PAIRS
    return float((context_length / MAX_ANGLE) ** (head_dim / (2 * pairs)))


def _basis(head_dim: int, context_length: int) -> np.ndarray:
    """`[context, 2P + 1]`: cosine and sine of each fast pair at each distance, and a constant."""
    pairs = head_dim // 2 - CONTENT_PAIRS
    frequencies = rope_theta(head_dim, context_length) ** (-2 * np.arange(pairs) / head_dim)
    angles = np.arange(context_length)[:, None] * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles), np.ones((context_length, 1))], axis=1)


def _solve(head_dim: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the coefficients of least l1 norm with `low <= wave(d) <= high`, `[2P + 1]`."""
    basis = _basis(head_dim, len(low))
    signed = np.concatenate([basis, -basis], axis=1)
    above, below = np.isfinite(high), np.isfinite(low)
    rows = np.concatenate([signed[above], -signed[below]])
    bounds = np.concatenate([high[above], -low[below]])
    solution = linprog(np.ones(signed.shape[1]), rows, bounds, bounds=(0, None), method="highs")
    if solution.x is None:
        raise ModelError(
            f"planted heads of dimension {head_dim} over {len(low)} tokens",
            found=f"no rotary wave ({solution.message})",
            expected="another head_dim, context_length or far_distance",
        )
    half = basis.shape[1]
    return np.asarray(solution.x[:half] - solution.x[half:])


@cache
def peak(head_dim: int, context_length: int, distance: int) -> np.ndarray:
    """Coefficients of a wave >= 1 at one distance and <= -1 at every other, `[2P + 1]`."""
    low, high = np.full(context_length, -np.inf), np.full(context_length, -1.0)
    low[distance], high[distance] = 1.0, np.inf
    return _solve(head_dim, low, high)


@cache
def far_peak(head_dim: int, context_length: int, distance: int, height: int) -> np.ndarray:
    """Coefficients of a wave >= `height` at one distance, 1..1.5 at 0, <= -1 at every other, `[2P + 1]`."""
    low, high = np.full(context_length, -np.inf), np.full(context_length, -1.0)
    low[[distance, 0]], high[[distance, 0]] = [height, 1.0], [np.inf, 1.5]
    return _solve(head_dim, low, high)


@cache
def plateau(head_dim: int, context_length: int) -> np.ndarray:
    """Coefficients of a wave within 12 ± 1 at distances 0..7, never above 13 and <= -5 from 15 on, `[2P + 1]`."""
    low, high = np.full(context_length, -np.inf), np.full(context_length, -5.0)
    low[:8], high[:15] = 11.0, 13.0
    return _solve(head_dim, low, high)


@cache
def dip(head_dim: int, context_length: int) -> np.ndarray:
    """Coefficients of a wave <= -`SELF_DEPTH` at distance 0 and within ±1 at every other, `[2P + 1]`."""
    low, high = np.full(context_length, -1.0), np.full(context_length, 1.0)
    low[0], high[0] = -np.inf, -SELF_DEPTH
    return _solve(head_dim, low, high)
