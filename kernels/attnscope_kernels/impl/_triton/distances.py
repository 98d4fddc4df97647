"""Mass by distance from two sources: bands of tiles wholly inside one bin, and exact diagonals of the others."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._operands import Operands
from ._tuning import tile
from .bands import diagonals, offsets

BEYOND = 1 << 30
"""More than any query row minus any key."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How the bins of one shape of call come about.

    Attributes:
        apart: bands whose diagonals are needed, as first query row minus first key.
        bands: `[2n + 2]` int32 for the weight pass (see `weights`), or None: tiles that lie in one bin as a whole.
        order: indices into (diagonals, then whole bands), bin after bin.
        starts: where each bin begins in `order`, and its end.
    """

    apart: tuple[int, ...]
    bands: Tensor | None
    order: Tensor
    starts: Tensor


def plan_of(operands: Operands, edges: tuple[int, ...]) -> Plan:
    """Return the plan of a call, from a cache where the same shape came before."""
    call = operands.call
    shape = tile("weights", call, operands.dim)
    tq, tk = call.q.shape[2], call.k.shape[2]
    return _plan(tq, tk, call.offset, call.causal, call.window, edges, shape.queries, shape.keys, call.q.device)


@lru_cache(maxsize=16)
def _plan(
    tq: int,
    tk: int,
    offset: int,
    causal: bool,
    window: int | None,
    edges: tuple[int, ...],
    step: int,
    keys: int,
    device: torch.device,
) -> Plan:
    lowest = -((tk - 1) // keys * keys)
    if causal:
        lowest = max(lowest, -((offset + step - 1) // step * step))
    lowest = -(-lowest // step) * step
    farthest = edges[-1] - 1 if window is None else min(edges[-1] - 1, window - 1)
    bands = [apart for apart in range(lowest, tq, step) if _nearest(apart + offset, step, keys) <= farthest]
    runs: list[list[int]] = []  # first, end, bin
    cut: list[int] = []
    for apart in bands:
        first, last = apart + offset - keys + 1, apart + offset + step - 1
        where = _bin(edges, max(first, 0))
        if not causal or keys % step or where != _bin(edges, last):
            cut.append(apart)
        elif where is not None and runs and runs[-1][1:] == [apart, where]:
            runs[-1][1] += step
        elif where is not None:
            runs.append([apart, apart + step, where])
    members: list[list[int]] = [[] for _ in range(len(edges) - 1)]
    within = offsets(step, keys)
    for number, apart in enumerate(cut):
        for entry, beside in enumerate(within):
            distance = apart + offset + beside
            into = _bin(edges, abs(distance)) if distance >= 0 or not causal else None
            if into is not None:
                members[into].append(number * len(within) + entry)
    for number, (_, _, into) in enumerate(runs):
        members[into].append(len(cut) * len(within) + number)
    starts = [0]
    for bin_ in members:
        starts.append(starts[-1] + len(bin_))
    limits = [-BEYOND, *(limit for run in runs for limit in run[:2]), BEYOND]
    order, begins, whole = (
        torch.tensor(numbers, dtype=torch.int32).to(device)
        for numbers in ([entry for bin_ in members for entry in bin_] or [0], starts, limits)
    )
    return Plan(tuple(cut), whole if runs else None, order, begins)


def _nearest(apart: int, step: int, keys: int) -> int:
    """Return the smallest |distance| in a tile."""
    first, last = apart - keys + 1, apart + step - 1
    return 0 if first <= 0 <= last else min(abs(first), abs(last))


def _bin(edges: tuple[int, ...], distance: int) -> int | None:
    where = bisect_right(edges, distance) - 1
    return where if 0 <= where < len(edges) - 1 else None


def mass_by_distance(operands: Operands, norm: Tensor, plan: Plan, totals: Tensor | None) -> Tensor:
    """Return the mass in each bin of a plan, `[B, H, bins]` float32.

    Args:
        totals: `[B, H, n]` of the weight pass; needed where the plan has bands.
    """
    b, h = operands.call.q.shape[:2]
    parts = []
    if plan.apart:
        parts.append(diagonals(operands, norm, list(plan.apart)).flatten(2))
    if plan.bands is not None:
        assert totals is not None
        parts.append(totals)
    bins = plan.starts.shape[0] - 1
    if not parts:
        return torch.zeros(b, h, bins, dtype=torch.float32, device=norm.device)
    values = torch.cat(parts, dim=2)
    out = torch.empty(b, h, bins, dtype=torch.float32, device=norm.device)
    block = 64
    blocks = -(-bins // block)
    _bins[(b * h * blocks,)](
        values, plan.order, plan.starts, out, values.shape[2], bins, blocks, BLOCK=block, num_warps=2
    )
    return out


@triton.jit
def _bins(VALUES, ORDER, STARTS, OUT, entries, bins, blocks, BLOCK: tl.constexpr):
    block = tl.program_id(0) % blocks
    bh = tl.program_id(0) // blocks
    bin_ = block * BLOCK + tl.arange(0, BLOCK)
    inside = bin_ < bins
    start = tl.load(STARTS + bin_, mask=inside, other=0)
    stop = tl.load(STARTS + bin_ + 1, mask=inside, other=0)
    total = tl.zeros([BLOCK], tl.float32)
    for step in range(tl.max(stop - start)):
        more = start + step < stop
        entry = tl.load(ORDER + start + step, mask=more, other=0)
        total += tl.load(VALUES + bh.to(tl.int64) * entries + entry, mask=more, other=0.0)
    tl.store(OUT + bh.to(tl.int64) * bins + bin_, total, mask=inside)
