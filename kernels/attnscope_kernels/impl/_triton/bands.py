"""Mass at exact distances: sums along the diagonals of chosen bands of tiles.

A band is the tiles whose first query and first key are a fixed number of rows apart. Its tiles are added element by
element while the program walks along it, and the diagonals are summed once, at the end.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._operands import Operands, processors
from ._tiles import HIDDEN, scores, visible
from ._tuning import tile

STEPS = 32
"""Fewest tiles that a program walks."""


@triton.jit
def _bands(
    qd, kd, OUT, NORM, APART, LOW, HIGH, QUERY_BITS, KEY_BITS, BIAS, FACTOR,
    H, group, tq, tk, count, parts, steps, norm_rows, bias_batch, scale, cap,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_FACTOR: tl.constexpr, WRAPS: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    part = pid % parts
    band = pid // parts % count
    bh = pid // (parts * count)
    b = bh // H
    h = bh % H
    g = h // group
    apart = tl.load(APART + band)
    if HAS_FACTOR:
        scale = scale * tl.load(FACTOR + h)
    bias_at = (b * bias_batch * H + h).to(tl.int64) * tk
    keys_at = b.to(tl.int64) * tk
    r = tl.arange(0, BM)
    c = tl.arange(0, BN)
    acc = tl.zeros([BM, BN], tl.float32)
    begin = tl.maximum(0, tl.cdiv(-apart, BN)) + part * steps
    end = tl.minimum(begin + steps, tl.cdiv(tk, BN))
    end = tl.minimum(end, tl.maximum(tl.cdiv(tq - apart, BN), 0))
    for t in range(begin, end):
        j0 = t * BN
        i0 = j0 + apart
        rows = i0 + r
        inside = rows < tq
        low = tl.load(LOW + b.to(tl.int64) * tq + rows, mask=inside, other=0)
        high = tl.load(HIGH + b.to(tl.int64) * tq + rows, mask=inside, other=0)
        norm = tl.load(NORM + bh.to(tl.int64) * norm_rows + rows, mask=inside, other=HIDDEN)
        k = kd.load([b, g, j0, 0]).reshape(BN, D)
        q = qd.load([b, h, i0, 0]).reshape(BM, D)
        x = scores(q, k, scale, cap, SOFTCAP, PRECISION)
        j = j0 + c
        bits = tl.zeros([BM], tl.int32)
        if HAS_BITS:
            bits = tl.load(QUERY_BITS + bh.to(tl.int64) * tq + rows, mask=inside, other=0)
        x = visible(x, low, high, j, tk, bits, BIAS, bias_at, KEY_BITS, keys_at, HAS_BIAS, HAS_BITS)
        acc += tl.math.exp2(x + norm[:, None])
    # Column d of the skewed tile holds acc[r, c] with c = (r − d) mod BN: the diagonals d, d + BN, …, and d − BN last.
    skewed = tl.gather(acc, (r[:, None] - c[None, :] + BN) % BN, 1)
    at = OUT + pid.to(tl.int64) * WRAPS * BN
    for wrap in tl.static_range(WRAPS - 1):
        _store_turn(at + wrap * BN, skewed, r, c, wrap * BN, BN)
    _store_turn(at + (WRAPS - 1) * BN, skewed, r, c, -BN, BN)


@triton.jit
def _store_turn(to, skewed, r, c, shift, BN: tl.constexpr):
    first = c[None, :] + shift
    own = (r[:, None] >= first) & (r[:, None] < first + BN)
    tl.store(to + c, tl.sum(tl.where(own, skewed, 0.0), 0))


def diagonals(operands: Operands, norm: Tensor, apart: list[int]) -> Tensor:
    """Return the mass on each diagonal of chosen bands, `[B, H, bands, entries]` float32; see `offsets`.

    Args:
        operands: the call.
        norm: of the forward kernel.
        apart: of each band, first query row minus first key of its tiles: a multiple of the tile's queries.
    """
    call, masks = operands.call, operands.masks
    b, h, tq, _ = call.q.shape
    tk, device = call.k.shape[2], call.q.device
    shape = tile("weights", call, operands.dim)
    tiles, wraps = -(-tk // shape.keys), _wraps(shape.queries, shape.keys)
    running = 2 * processors(device.index if device.type == "cuda" else None)
    parts = max(1, min(-(-tiles // STEPS), -(-8 * running // (b * h * len(apart)))))
    steps = -(-tiles // parts)
    out = torch.empty(b, h, len(apart), parts, wraps * shape.keys, dtype=torch.float32, device=device)
    _bands[(b * h * len(apart) * parts,)](
        operands.describe("q", shape.queries), operands.describe("k", shape.keys), out, norm,
        torch.tensor(apart, dtype=torch.int32).to(device, non_blocking=True), masks.low, masks.high, masks.query_bits,
        masks.key_bits, masks.bias, operands.factor, h, call.group_size, tq, tk, len(apart), parts, steps,
        norm.shape[2], int(masks.bias is not None and masks.bias.shape[0] > 1), operands.scale, operands.cap,
        BM=shape.queries, BN=shape.keys, D=operands.dim, SOFTCAP=call.softcap is not None,
        PRECISION=operands.precision, HAS_BITS=masks.query_bits is not None, HAS_BIAS=masks.bias is not None,
        HAS_FACTOR=operands.factor is not None, WRAPS=wraps, num_warps=shape.warps, num_stages=2,
    )  # fmt: skip
    return out.sum(3)


def offsets(queries: int, keys: int) -> list[int]:
    """Return row minus column of each entry of `diagonals`, within a tile.

    Example:
        >>> offsets(2, 4)
        [0, 1, 2, 3, -4, -3, -2, -1]
    """
    turns = [*range(_wraps(queries, keys) - 1), -1]
    return [turn * keys + column for turn in turns for column in range(keys)]


def _wraps(queries: int, keys: int) -> int:
    return max(1, queries // keys) + 1
