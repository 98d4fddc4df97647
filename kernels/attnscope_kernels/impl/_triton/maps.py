"""A picture of a head's attention at any length: the mean or the largest weight of each block of queries and keys."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._shapes import block_of, one_hot
from ._operands import Operands
from ._tiles import HIDDEN, scores, visible
from ._tuning import tile


@triton.jit
def _cells(
    qd, kd, SUMS, MAXIMA, NORM, LOW, HIGH, QUERY_BITS, KEY_BITS, BIAS, FACTOR,
    H, group, tq, tk, map_rows, map_columns, norm_rows, bias_batch, scale, cap,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_FACTOR: tl.constexpr, SUM: tl.constexpr, MAXIMUM: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    column = pid % map_columns
    row = pid // map_columns % map_rows
    bh = pid // (map_columns * map_rows)
    b = bh // H
    h = bh % H
    g = h // group
    first = (row.to(tl.int64) * tq // map_rows).to(tl.int32)
    last = ((row + 1).to(tl.int64) * tq // map_rows).to(tl.int32)
    left = (column.to(tl.int64) * tk // map_columns).to(tl.int32)
    right = ((column + 1).to(tl.int64) * tk // map_columns).to(tl.int32)
    if HAS_FACTOR:
        scale = scale * tl.load(FACTOR + h)
    bias_at = (b * bias_batch * H + h).to(tl.int64) * tk
    keys_at = b.to(tl.int64) * tk
    mass = tl.zeros([BM], tl.float32)
    most = tl.zeros([BM], tl.float32)
    for i0 in range(first, last, BM):
        rows = i0 + tl.arange(0, BM)
        inside = rows < last
        low = tl.load(LOW + b.to(tl.int64) * tq + rows, mask=inside, other=0)
        high = tl.load(HIGH + b.to(tl.int64) * tq + rows, mask=inside, other=0)
        norm = tl.load(NORM + bh.to(tl.int64) * norm_rows + rows, mask=inside, other=HIDDEN)
        low = tl.maximum(low, left)
        high = tl.minimum(high, right)
        sees = high > low
        if tl.max(sees.to(tl.int32)) > 0:
            q = qd.load([b, h, i0, 0]).reshape(BM, D)
            bits = tl.zeros([BM], tl.int32)
            if HAS_BITS:
                bits = tl.load(QUERY_BITS + bh.to(tl.int64) * tq + rows, mask=inside, other=0)
            start = tl.min(tl.where(sees, low, tk))
            end = tl.max(tl.where(sees, high, 0))
            for j0 in range(start, end, BN):
                j = j0 + tl.arange(0, BN)
                k = kd.load([b, g, j0, 0]).reshape(BN, D)
                x = scores(q, k, scale, cap, SOFTCAP, PRECISION)
                x = visible(x, low, high, j, tk, bits, BIAS, bias_at, KEY_BITS, keys_at, HAS_BIAS, HAS_BITS)
                p = tl.math.exp2(x + norm[:, None])
                if SUM:
                    mass += tl.sum(p, 1)
                if MAXIMUM:
                    most = tl.maximum(most, tl.max(p, 1))
    at = (bh.to(tl.int64) * map_rows + row) * map_columns + column
    if SUM:
        tl.store(SUMS + at, tl.sum(mass))
    if MAXIMUM:
        tl.store(MAXIMA + at, tl.max(most))


def pooled(operands: Operands, norm: Tensor, shape: tuple[int, int], *, maximum: bool) -> Tensor:
    """Return the pooled map `[B, H, rows, columns]` float32, NaN in rows without a query that counts.

    Args:
        shape: rows and columns of the map.
        maximum: the largest weight of each block instead of the mean mass of its queries.
    """
    call, masks = operands.call, operands.masks
    b, h, tq, _ = call.q.shape
    cells = torch.empty(b, h, *shape, dtype=torch.float32, device=call.q.device)
    block = tile("weights", call, operands.dim)
    _cells[(b * h * shape[0] * shape[1],)](
        operands.describe("q", block.queries), operands.describe("k", block.keys), None if maximum else cells,
        cells if maximum else None, norm, masks.low, masks.high, masks.query_bits, masks.key_bits, masks.bias,
        operands.factor, h, call.group_size, tq, call.k.shape[2], *shape, norm.shape[2],
        int(masks.bias is not None and masks.bias.shape[0] > 1), operands.scale, operands.cap,
        BM=block.queries, BN=block.keys, D=operands.dim, SOFTCAP=call.softcap is not None,
        PRECISION=operands.precision, HAS_BITS=masks.query_bits is not None, HAS_BIAS=masks.bias is not None,
        HAS_FACTOR=operands.factor is not None, SUM=not maximum, MAXIMUM=maximum, num_warps=block.warps, num_stages=2,
    )  # fmt: skip
    counts = (norm[:, :, :tq] > HIDDEN.value / 2).float()
    queries = counts @ one_hot(block_of(tq, shape[0], norm.device), shape[0], torch.float32)
    divisor = torch.ones_like(queries) if maximum else queries
    return cells / torch.where(queries > 0, divisor, math.nan).unsqueeze(-1)
