"""Which queries a screen takes for which keys, and what their sums say about the whole.

A key that few queries see needs most of them, one that all see needs few. So the keys are cut into ranges by how many
queries see them, and each range has its own sample: one query of every stratum, the strata twice as large for a range
that is seen twice as often. The work is then the same for every key, whatever the length of the prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..contract import AttentionCall, Screen

MARGIN = 1.5
"""A key without any attention is dismissed with this much to spare."""


@dataclass(frozen=True, eq=False)
class Level:
    """The sample for one range of keys.

    Attributes:
        keys: the range.
        size: queries in a stratum; 1 takes every query, and sums are then exact.
        queries: `[S]` increasing query indices, one of each stratum that may see one of the keys.
        weights: `[S]` float32, the number of queries in each one's stratum.
    """

    keys: slice
    size: int
    queries: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """What a screen looks at.

    Attributes:
        levels: the ranges of keys, in order; together they are all keys.
        rows: `[N]` one query of every `stride`, for row statistics.
    """

    levels: tuple[Level, ...]
    rows: Tensor


def draw(call: AttentionCall, screen: Screen) -> Sample:
    """Return the screen's sample of a call, the same for every implementation, device and head.

    Example:
        >>> q = torch.zeros(1, 1, 9000, 4)
        >>> sample = draw(AttentionCall(layer=0, q=q, k=q, v=q, scale=1.0), Screen())
        >>> [(level.keys, level.size) for level in sample.levels]
        [(slice(0, 711, None), 4), (slice(711, 4856, None), 2), (slice(4856, 9000, None), 1)]
    """
    return _draw(call.q.shape[2], call.k.shape[2], call.offset, call.causal, call.window or 0, screen, call.q.device)


@lru_cache(maxsize=16)
def _draw(tq: int, tk: int, offset: int, causal: bool, window: int, screen: Screen, device: torch.device) -> Sample:
    random = torch.Generator().manual_seed(screen.seed)
    levels = []
    for keys, size in _ranges(tq, tk, offset, causal, window, screen):
        first = max(keys.start - offset, 0) if causal else 0
        queries, weights = _one_of_each(tq, size, random)
        later = queries + size > first  # the stratum may reach the first query that sees a key
        levels.append(Level(keys, size, queries[later].to(device), weights[later].to(device)))
    rows, _ = _one_of_each(tq, screen.stride, random)
    return Sample(tuple(levels), rows.to(device))


def _ranges(tq: int, tk: int, offset: int, causal: bool, window: int, screen: Screen) -> list[tuple[slice, int]]:
    """Return the ranges of keys in order, and the size of their strata."""
    reach = MARGIN * math.log(1 / screen.delta) / screen.threshold
    sizes = [1 << power for power in range(screen.stride.bit_length())]
    seen_by = min(tq, window) if window else tq
    ranges: list[tuple[slice, int]] = []
    start = 0
    for size in reversed(sizes):
        needed = math.ceil(size * reach)
        stop = tk
        if size > 1:  # keys before `stop` are seen by at least `needed` queries
            stop = min(tk, offset + tq - needed + 1) if causal else tk
            if needed > seen_by:
                continue
        if stop > start:
            ranges.append((slice(start, stop), size))
            start = stop
    return ranges


def _one_of_each(tq: int, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return one query of every stratum and the strata's sizes; strata end at the last query, the first is the rest."""
    ends = torch.arange(tq, 0, -size).flip(0)
    starts = (ends - size).clamp(min=0)
    sizes = ends - starts
    drawn = starts + (torch.rand(len(ends), generator=random, dtype=torch.float64) * sizes).long()
    return drawn, sizes.float()


def upper_bound(estimate: Tensor, size: int, delta: float) -> Tensor:
    """Return a sum that gives an estimate this low with probability `delta` at most (Chernoff), float64.

    Args:
        estimate: Σ weight · share over the drawn queries.
        size: of the largest stratum.
        delta: 0..1.

    Example:
        >>> upper_bound(torch.tensor([0.0]), 1, 1e-6).round(decimals=2).item()
        13.82
    """
    x, reach = estimate.double(), size * math.log(1 / delta)
    bound = x + reach + (reach * reach + 2 * reach * x).sqrt()
    for _ in range(3):  # Newton from above on the convex  m − x + x·ln(x/m) = reach: every step is a bound
        excess = bound - x + torch.special.xlogy(x, x / bound) - reach
        bound = bound - excess / (1 - x / bound)
    return bound
