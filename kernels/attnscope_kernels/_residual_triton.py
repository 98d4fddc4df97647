"""Residual statistics in Triton: one read of the stream, partial sums that are added in a fixed order.

Program (chunk of tokens, slice of dimensions) writes its tokens' Σx², max and argmax over its dimensions, and its
dimensions' Σ|x| over its tokens; a second kernel joins the slices of each token, and torch adds the chunks in float64.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from .residual import ResidualStatistics, kept_tokens

TOKENS = 128
"""Tokens a program: the partial sums of the dimensions then take 2/128 of a bfloat16 stream."""
ROWS, LANES = 8, 256
"""Tokens in flight, one a warp, and the dimensions that a warp loads at once; a program has four times as many."""
REGISTERS = 128
"""A thread's registers at most, so that two programs share a multiprocessor."""
JOINED = 512
"""Tokens a program of the second kernel."""
ADDED = 1024
"""Partial sums of the dimensions that are added at once."""


@triton.jit
def _visit(row, d, M, real, kept, square, top, where, total):
    """Take one load `[ROWS, LANES]` into the four running statistics, element by element."""
    size = tl.abs(tl.load(row + d, mask=real & (d < M), other=0.0).to(tl.float32))
    ordered = tl.where(size != size, float("inf"), size)
    where = tl.where(ordered > top, d, where)
    return square + size * size, tl.maximum(top, ordered), where, total + tl.where(kept, size, 0.0)


@triton.jit
def partial_kernel(
    x, valid, skip, square, largest, where, dimension_sum, T, M, chunks, stride_b, stride_t,
    HAS_VALID: tl.constexpr, HAS_SKIP: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Reduce TOKENS tokens × 4·LANES dimensions, ROWS tokens at a time."""
    program = tl.program_id(0).to(tl.int64)
    b = program // chunks
    start = (program % chunks) * TOKENS
    part = tl.program_id(1)
    batch = tl.num_programs(0) // chunks
    d = part * (4 * LANES) + tl.arange(0, LANES)
    skipped = tl.load(skip + b) if HAS_SKIP else -1
    nothing = tl.zeros([ROWS, LANES], tl.float32)
    total0, total1, total2, total3 = nothing, nothing, nothing, nothing
    for first in range(0, tl.minimum(T - start, TOKENS).to(tl.int32), ROWS):
        t = start + first + tl.arange(0, ROWS)
        real = t < T
        if HAS_VALID:
            real = real & (tl.load(valid + b * T + t, mask=real, other=0) != 0)
        kept = (real & (t != skipped))[:, None]
        row, loaded = (x + b * stride_b + t * stride_t)[:, None], real[:, None]
        squares, top, at = nothing, nothing - 1.0, tl.zeros([ROWS, LANES], tl.int32)
        squares, top, at, total0 = _visit(row, d[None, :], M, loaded, kept, squares, top, at, total0)
        squares, top, at, total1 = _visit(row, d[None, :] + LANES, M, loaded, kept, squares, top, at, total1)
        squares, top, at, total2 = _visit(row, d[None, :] + 2 * LANES, M, loaded, kept, squares, top, at, total2)
        squares, top, at, total3 = _visit(row, d[None, :] + 3 * LANES, M, loaded, kept, squares, top, at, total3)
        most = tl.max(top, 1)
        to = (part * batch + b) * T + t
        tl.store(square + to, tl.sum(squares, 1), mask=t < T)
        tl.store(largest + to, most, mask=t < T)
        tl.store(where + to, tl.min(tl.where(top == most[:, None], at, 2147483647), 1), mask=t < T)
    to = dimension_sum + program * M
    tl.store(to + d, tl.sum(total0, 0), mask=d < M)
    tl.store(to + d + LANES, tl.sum(total1, 0), mask=d + LANES < M)
    tl.store(to + d + 2 * LANES, tl.sum(total2, 0), mask=d + 2 * LANES < M)
    tl.store(to + d + 3 * LANES, tl.sum(total3, 0), mask=d + 3 * LANES < M)


@triton.jit
def join_kernel(
    square, largest, where, valid, norm, max_abs, argmax, N, parts, HAS_VALID: tl.constexpr, BLOCK: tl.constexpr
):
    """Join the slices of N = B·T tokens; the first slice that holds the largest |x| wins."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < N
    total = tl.zeros([BLOCK], tl.float32)
    top = tl.full([BLOCK], -1.0, tl.float32)
    at = tl.full([BLOCK], -1, tl.int64)
    for part in range(parts):
        to = part * N + i
        total += tl.load(square + to, mask=inside, other=0.0)
        candidate = tl.load(largest + to, mask=inside, other=0.0)
        dimension = tl.load(where + to, mask=inside, other=0).to(tl.int64)
        at = tl.where(candidate > top, dimension, at)
        top = tl.maximum(top, candidate)
    real = inside
    if HAS_VALID:
        real = tl.load(valid + i, mask=inside, other=0) != 0
    missing = float("nan")
    tl.store(norm + i, tl.where(real, tl.sqrt_rn(total), missing), mask=inside)
    tl.store(max_abs + i, tl.where(real & (total == total), top, missing), mask=inside)
    tl.store(argmax + i, tl.where(real, at, -1), mask=inside)


INTERPRETED = isinstance(partial_kernel, InterpretedFunction)
"""Whether the kernels run in Triton's interpreter, and so on the CPU (TRITON_INTERPRET was set when they were made)."""


def run(x: Tensor, valid: Tensor | None, skip: Tensor | None) -> ResidualStatistics:
    """Compute the statistics of x `[B, T, M]` whose last dimension is contiguous."""
    b, t, m = x.shape
    chunks, parts = triton.cdiv(t, TOKENS), triton.cdiv(m, 4 * LANES)
    mask = None if valid is None else valid.contiguous().view(torch.uint8)
    skip = None if skip is None else skip.contiguous()
    norm, max_abs = (torch.empty(b, t, dtype=torch.float32, device=x.device) for _ in range(2))
    argmax = torch.empty(b, t, dtype=torch.int64, device=x.device)
    square, largest = (torch.empty(parts, b, t, dtype=torch.float32, device=x.device) for _ in range(2))
    where = torch.empty(parts, b, t, dtype=torch.int32, device=x.device)
    sums = torch.empty(b, chunks, m, dtype=torch.float32, device=x.device)
    if b and t:
        with torch.cuda.device_of(x):
            partial_kernel[b * chunks, parts](
                x, mask, skip, square, largest, where, sums, t, m, chunks, x.stride(0), x.stride(1),
                HAS_VALID=mask is not None, HAS_SKIP=skip is not None,
                TOKENS=TOKENS, ROWS=ROWS, LANES=LANES, num_warps=ROWS, maxnreg=REGISTERS,
            )  # fmt: skip
            join_kernel[triton.cdiv(b * t, JOINED),](
                square, largest, where, mask, norm, max_abs, argmax, b * t, parts,
                HAS_VALID=mask is not None, BLOCK=JOINED, num_warps=4,
            )  # fmt: skip
    total = torch.zeros(b, m, dtype=torch.float64, device=x.device)
    for some in sums.split(ADDED, dim=1):  # torch copies what it adds in float64
        total += some.sum(1, dtype=torch.float64)
    return ResidualStatistics(norm, max_abs, argmax, total, kept_tokens(x, valid, skip), "triton")
