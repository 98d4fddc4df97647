"""Masses of groups of keys: the weights times a matrix with one column a group, exact to float32.

The groups' matrix holds zeros and ones; the weights go in as three bfloat16 parts (float16 and float32 calls likewise),
which together hold all 24 bits of a float32, so that the products run on matrix units without loss.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._shapes import group_count
from ._operands import Operands
from ._tiles import HIDDEN, product, scores, visible
from ._tuning import tile

COLUMNS = 64
"""Groups that one program sums."""


@triton.jit
def _groups(
    qd, kd, OUT, NORM, GROUPS, LOW, HIGH, QUERY_BITS, KEY_BITS, BIAS, FACTOR,
    H, group, tq, tk, count, blocks, parts, norm_rows, bias_batch, scale, cap,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, N: tl.constexpr, SOFTCAP: tl.constexpr,
    PRECISION: tl.constexpr, HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_FACTOR: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    part = pid % parts
    block = pid // parts % blocks
    bh = pid // (parts * blocks)
    b = bh // H
    h = bh % H
    g = h // group
    rows = block * BM + tl.arange(0, BM)
    inside = rows < tq
    low = tl.load(LOW + b.to(tl.int64) * tq + rows, mask=inside, other=0)
    high = tl.load(HIGH + b.to(tl.int64) * tq + rows, mask=inside, other=0)
    norm = tl.load(NORM + bh.to(tl.int64) * norm_rows + rows, mask=inside, other=HIDDEN)
    bits = tl.zeros([BM], tl.int32)
    if HAS_BITS:
        bits = tl.load(QUERY_BITS + bh.to(tl.int64) * tq + rows, mask=inside, other=0)
    if HAS_FACTOR:
        scale = scale * tl.load(FACTOR + h)
    sees = high > low
    start = tl.min(tl.where(sees, low, tk)) // BN * BN
    end = tl.max(tl.where(sees, high, 0))
    q = qd.load([b, h, block * BM, 0]).reshape(BM, D)
    bias_at = (b * bias_batch * H + h).to(tl.int64) * tk
    keys_at = b.to(tl.int64) * tk
    columns = part * N + tl.arange(0, N)
    mass = tl.zeros([BM, N], tl.float32)
    for j0 in range(start, end, BN):
        j = j0 + tl.arange(0, BN)
        k = kd.load([b, g, j0, 0]).reshape(BN, D)
        x = scores(q, k, scale, cap, SOFTCAP, PRECISION)
        x = visible(x, low, high, j, tk, bits, BIAS, bias_at, KEY_BITS, keys_at, HAS_BIAS, HAS_BITS)
        p = tl.math.exp2(x + norm[:, None])
        of = tl.load(GROUPS + b.to(tl.int64) * tk + j, mask=j < tk, other=-1)
        member = (of[:, None] == columns[None, :]).to(tl.float32).to(tl.bfloat16)
        high_part = p.to(tl.bfloat16)
        rest = p - high_part.to(tl.float32)
        middle = rest.to(tl.bfloat16)
        lowest = (rest - middle.to(tl.float32)).to(tl.bfloat16)
        mass += product(high_part, member, "ieee")
        mass += product(middle, member, "ieee")
        mass += product(lowest, member, "ieee")
    nan = float("nan")
    counts = norm > 0.5 * HIDDEN
    at = (bh.to(tl.int64) * tq + rows)[:, None] * count + columns[None, :]
    tl.store(OUT + at, tl.where(counts[:, None], mass, nan), mask=inside[:, None] & (columns < count)[None, :])


def mass_in(operands: Operands, norm: Tensor, groups: Tensor) -> Tensor:
    """Return the mass on each group of keys `[B, H, Tq, n]` float32, NaN where a query does not count.

    Args:
        groups: `[B, Tk]` group of each key, -1 for none.
    """
    call, masks = operands.call, operands.masks
    b, h, tq, _ = call.q.shape
    count = group_count(groups)
    out = torch.empty(b, h, tq, count, dtype=torch.float32, device=call.q.device)
    if count == 0:
        return out
    shape = tile("rows", call, operands.dim)
    width = min(COLUMNS, max(16, triton.next_power_of_2(count)))
    parts, blocks = -(-count // width), -(-tq // shape.queries)
    _groups[(b * h * blocks * parts,)](
        operands.describe("q", shape.queries), operands.describe("k", shape.keys), out, norm,
        groups.to(torch.int32).contiguous(), masks.low, masks.high, masks.query_bits, masks.key_bits, masks.bias,
        operands.factor, h, call.group_size, tq, call.k.shape[2], count, blocks, parts, norm.shape[2],
        int(masks.bias is not None and masks.bias.shape[0] > 1), operands.scale, operands.cap,
        BM=shape.queries, BN=shape.keys, D=operands.dim, N=width, SOFTCAP=call.softcap is not None,
        PRECISION=operands.precision, HAS_BITS=masks.query_bits is not None, HAS_BIAS=masks.bias is not None,
        HAS_FACTOR=operands.factor is not None, num_warps=shape.warps, num_stages=2,
    )  # fmt: skip
    return out
