"""A screened want: sampled queries first, then exact columns for the keys that the sample cannot dismiss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ..contract import AttentionCall, Result, Screen, Want
from ._sample import Level, Sample, draw, upper_bound
from ._visible import queries_that_see

SLACK = 1 - 1e-4
"""Candidates are taken a rounding error below the threshold."""
WORTH = 8
"""Where no stratum has this many queries, all rows cost less than a sample and its candidates (BENCHMARKS.md)."""


class Backend(Protocol):
    """What a screen asks of an implementation."""

    name: str

    def whole(self, call: AttentionCall, want: Want) -> Result:
        """Compute a want without a screen."""
        ...

    def rows(self, call: AttentionCall, lse: Tensor, queries: Tensor, want: Want) -> dict[str, Tensor]:
        """Return entropy, largest weight and mean distance of the rows of `queries` `[S]`, `[B, H, S]` each."""
        ...

    def received(self, call: AttentionCall, lse: Tensor, level: Level) -> Tensor:
        """Sum the rows of a level's queries with its weights, `[B, H, keys of the level]`."""
        ...

    def columns(self, call: AttentionCall, lse: Tensor, keys: Tensor) -> Tensor:
        """Sum the columns of `keys` `[B, C]` over the queries that count, `[B, H, C]`."""
        ...


def screened(call: AttentionCall, want: Want, backend: Backend) -> Result:
    """Return the result of a want with a screen; all of it is exact where that costs less."""
    assert want.screen is not None
    sample = draw(call, want.screen)
    if max(level.size for level in sample.levels) < WORTH:
        return _exact(backend.whole(call, replace(want, screen=None)))
    exact_too = replace(want, screen=None, lse=True, received=False, entropy=False, max_prob=False, mean_distance=False)
    first = backend.whole(call, exact_too)
    assert first.lse is not None
    rows: dict[str, Tensor] = {}
    if want.entropy or want.max_prob or want.mean_distance:
        asked = Want(False, entropy=want.entropy, max_prob=want.max_prob, mean_distance=want.mean_distance)
        rows = {
            name: _spread(one, sample.rows, call)
            for name, one in backend.rows(call, first.lse, sample.rows, asked).items()
        }
    received = exact = bound = None
    if want.received:
        received, exact, bound = _received(call, want.screen, backend, first.lse, sample)
    return Result(
        backend.name,
        kernels=(*first.kernels, *(["sampled rows"] if rows else []), *(["screen"] if want.received else [])),
        output=first.output,
        lse=first.lse if want.lse else None,
        value_norm=first.value_norm,
        mass_at=first.mass_at,
        top_keys=first.top_keys,
        mass_by_distance=first.mass_by_distance,
        received=received,
        received_exact=exact,
        received_bound=bound,
        entropy=rows.get("entropy"),
        max_prob=rows.get("max_prob"),
        mean_distance=rows.get("mean_distance"),
    )


def _exact(result: Result) -> Result:
    """Return a result without a sample, in a screen's terms."""
    if result.received is None:
        return result
    every = torch.ones_like(result.received[:, 0], dtype=torch.bool)
    return replace(result, received_exact=every, received_bound=result.received)


def _spread(statistic: Tensor, queries: Tensor, call: AttentionCall) -> Tensor:
    """Return `[B, H, Tq]`: the statistic at some queries, NaN elsewhere."""
    b, h, tq, _ = call.q.shape
    full = statistic.new_full((b, h, tq), math.nan)
    full[:, :, queries] = statistic
    return full


def _received(
    call: AttentionCall, screen: Screen, backend: Backend, lse: Tensor, sample: Sample
) -> tuple[Tensor, Tensor, Tensor]:
    found = [backend.received(call, lse, level) for level in sample.levels]
    received = torch.cat(found, dim=2)
    seen = queries_that_see(call)
    bounds = [upper_bound(one, level.size, screen.delta) for one, level in zip(found, sample.levels, strict=True)]
    bound = torch.minimum(torch.cat(bounds, dim=2), seen[:, None].double())
    wholly = torch.zeros_like(seen, dtype=torch.bool)
    for level in sample.levels:
        wholly[:, level.keys] = level.size == 1
    candidate = (bound >= screen.threshold * SLACK * seen[:, None]).any(1) & (seen > 0) & ~wholly
    most = int(candidate.sum(1).max())
    if most:
        order = candidate.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        columns = backend.columns(call, lse, order)
        kept = candidate.gather(1, order)[:, None].expand_as(columns)
        place = order[:, None].expand_as(columns)
        received = received.scatter(2, place, torch.where(kept, columns, received.gather(2, place)))
    exact = candidate | wholly
    return received, exact, torch.where(exact[:, None], received, bound.to(received.dtype))
