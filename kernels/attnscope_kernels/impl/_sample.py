"""Which queries a screen takes, and what their sums say about the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..contract import AttentionCall, Screen

MARGIN = 1.2
"""Strata of one query reach back this many times as far as a key without any attention needs to be dismissed."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One query of each stratum.

    Attributes:
        queries: `[S]` increasing query indices.
        weights: `[S]` float32, the number of queries in each one's stratum.
        base: `[S]` bool, one query in every `stride`: a plain sample, for row statistics.
    """

    queries: Tensor
    weights: Tensor
    base: Tensor


def draw(call: AttentionCall, screen: Screen) -> Sample:
    """Return the screen's queries of a call, the same for every implementation, device and head.

    Example:
        >>> q = torch.zeros(1, 1, 99, 4)
        >>> draw(AttentionCall(layer=0, q=q, k=q, v=q, scale=1.0), Screen()).weights.sum().item()
        99.0
    """
    return _draw(call.q.shape[2], call.causal, screen, call.q.device)


@lru_cache(maxsize=16)
def _draw(tq: int, causal: bool, screen: Screen, device: torch.device) -> Sample:
    stride = screen.stride
    random = torch.Generator().manual_seed(screen.seed)
    sizes = _sizes(tq, causal, screen)
    starts = [tq % stride + number * stride for number in range(tq // stride)]
    queries, weights, base = [], [], []
    if tq % stride:
        queries.append(torch.arange(tq % stride))
        weights.append(torch.ones(tq % stride))
        base.append(_one_of(tq % stride, random))
    for size in sorted(set(sizes), reverse=True):  # sizes never grow towards the end
        blocks = torch.tensor([start for start, own in zip(starts, sizes, strict=True) if own == size])
        per = stride // size
        first = (blocks[:, None] + torch.arange(per) * size).flatten()
        queries.append(first + torch.randint(0, size, first.shape, generator=random))
        weights.append(torch.full(first.shape, float(size)))
        chosen = torch.randint(0, per, (len(blocks), 1), generator=random)
        base.append((torch.arange(per) == chosen).flatten())
    return Sample(torch.cat(queries).to(device), torch.cat(weights).to(device), torch.cat(base).to(device))


def _sizes(tq: int, causal: bool, screen: Screen) -> list[int]:
    """Return the size of the strata in each whole block of `stride` queries."""
    reach = MARGIN * math.log(1 / screen.delta) / screen.threshold
    divisors = [size for size in range(1, screen.stride + 1) if screen.stride % size == 0]
    blocks = tq // screen.stride
    after = [(blocks - 1 - number) * screen.stride if causal else tq for number in range(blocks)]
    return [max((size for size in divisors if size * reach <= rest), default=1) for rest in after]


def _one_of(count: int, random: torch.Generator) -> Tensor:
    return torch.arange(count) == torch.randint(0, count, (1,), generator=random)


def largest_weight(call: AttentionCall, sample: Sample) -> Tensor:
    """Return `[Tk]` the weight of the largest stratum whose queries may see each key."""
    tk = call.k.shape[2]
    if not call.causal:
        return sample.weights.amax().expand(tk)
    first = (torch.arange(tk, device=call.q.device) - call.offset).clamp(0, call.q.shape[2] - 1)
    # the stratum that holds the first query to see a key: the first drawn query at or after it, or the one before
    after = torch.searchsorted(sample.queries, first).clamp(max=len(sample.queries) - 1)
    later = sample.weights.flip(0).cummax(0).values.flip(0)
    return torch.maximum(later[after], sample.weights[(after - 1).clamp(min=0)])


def upper_bound(estimate: Tensor, weight: Tensor, delta: float) -> Tensor:
    """Return the largest sum that gives an estimate this low with probability `delta` or more (Chernoff), float64.

    Args:
        estimate: Σ weight · share over the drawn queries.
        weight: of the largest stratum, broadcast against `estimate`.
        delta: 0..1.
    """
    x, reach = estimate.double(), weight.double() * math.log(1 / delta)
    bound = x + reach + (reach * reach + 2 * reach * x).sqrt()
    for _ in range(3):  # Newton from above on the convex  m − x + x·ln(x/m) = reach: every step is a bound
        excess = bound - x + torch.special.xlogy(x, x / bound) - reach
        bound = bound - excess / (1 - x / bound)
    return bound
