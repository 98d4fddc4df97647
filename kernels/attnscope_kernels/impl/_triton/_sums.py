"""Sums over the slots of the weight pass's scratch, in a fixed order."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._tiles import HIDDEN, LN2

BLOCK = 256


@triton.jit
def _sum_rows(
    ROWS, START, NORM, SINK, ENTROPIES, MAXIMA, bh_first, heads, H, tq, blocks, slots, norm_rows,
    BLOCK_ROWS: tl.constexpr, HAS_SINK: tl.constexpr, ENTROPY: tl.constexpr, MAXIMUM: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0) % blocks
    own = tl.program_id(0) // blocks
    bh = bh_first + own
    b = bh // H
    rows = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = rows < tq
    two = tl.arange(0, 2)
    negative = tl.zeros([BLOCK_ROWS, 2], tl.float32)
    for slot in range(slots):
        start = tl.load(START + b * slots + slot)
        if start < (block + 1) * BLOCK_ROWS:
            at = (slot * heads + own).to(tl.int64) * norm_rows
            touched = inside & (rows >= start)
            found = tl.load(ROWS + (at + rows)[:, None] * 2 + two[None, :], mask=touched[:, None], other=0.0)
            negative = tl.where(two[None, :] == 0, negative + found, tl.maximum(negative, found))
    weighted, largest = negative.split()
    norm = tl.load(NORM + bh.to(tl.int64) * norm_rows + rows, mask=inside, other=HIDDEN)
    counts = norm > 0.5 * HIDDEN
    nan = float("nan")
    at = bh.to(tl.int64) * tq + rows
    if ENTROPY:
        if HAS_SINK:
            x = tl.where(counts, tl.load(SINK + bh % H) + norm, 0.0)
            weighted += tl.math.exp2(x) * x
        entropy = tl.maximum(-weighted * LN2, 0.0)
        tl.store(ENTROPIES + at, tl.where(counts, entropy, nan), mask=inside)
    if MAXIMUM:
        tl.store(MAXIMA + at, tl.where(counts, largest, nan), mask=inside)


def sum_rows(
    scratch: Tensor,
    start: Tensor,
    norm: Tensor,
    sink: Tensor | None,
    entropies: Tensor | None,
    maxima: Tensor | None,
    first: int,
    tq: int,
) -> None:
    """Write entropy and largest weight of heads `first`.. from `[slots, heads, rows, 2]` scratch.

    Args:
        scratch: Σ p·log2 p and max p of each slot.
        start: `[B, slots]` int32, the first row that a slot wrote.
        norm: `[B, H, rows]`.
        sink: `[H]` in log2 units, or None.
        entropies: `[B, H, Tq]` to write, or None.
        maxima: likewise.
        first: flat index of the first head.
        tq: queries.
    """
    slots, heads = scratch.shape[:2]
    blocks = -(-tq // BLOCK)
    _sum_rows[(heads * blocks,)](
        scratch, start, norm, sink, entropies, maxima, first, heads, norm.shape[1], tq, blocks, slots, norm.shape[2],
        BLOCK_ROWS=BLOCK, HAS_SINK=sink is not None, ENTROPY=entropies is not None, MAXIMUM=maxima is not None,
        num_warps=4,
    )  # fmt: skip
