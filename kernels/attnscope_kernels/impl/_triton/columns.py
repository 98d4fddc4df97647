"""Chosen columns of the weights, summed over the queries: keys are gathered, queries streamed."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ._operands import Operands, aligned
from ._tiles import HIDDEN, hide, hide_bits, scores
from ._tuning import tile


@triton.jit
def _columns(
    qd, kd, OUT, NORM, KEYS, LOW, HIGH, QUERY_BITS, KEY_BITS, BIAS, FACTOR,
    H, group, tq, tk, count, blocks, parts, steps, norm_rows, bias_batch, scale, cap,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_FACTOR: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    part = pid % parts
    block = pid // parts % blocks
    bh = pid // (parts * blocks)
    b = bh // H
    h = bh % H
    g = h // group
    own = block * BN + tl.arange(0, BN)
    j = tl.load(KEYS + b * count + own, mask=own < count, other=0)
    k = kd.load([b, g, block * BN, 0]).reshape(BN, D)
    if HAS_FACTOR:
        scale = scale * tl.load(FACTOR + h)
    bias = tl.zeros([BN], tl.float32)
    key_bits = tl.zeros([BN], tl.int32)
    if HAS_BIAS:
        bias = tl.load(BIAS + (b * bias_batch * H + h).to(tl.int64) * tk + j)
    if HAS_BITS:
        key_bits = tl.load(KEY_BITS + b.to(tl.int64) * tk + j)
    total = tl.zeros([BN], tl.float32)
    first = part * steps * BM
    for i0 in range(first, tl.minimum(first + steps * BM, tq), BM):
        rows = i0 + tl.arange(0, BM)
        inside = rows < tq
        low = tl.load(LOW + b.to(tl.int64) * tq + rows, mask=inside, other=0)
        high = tl.load(HIGH + b.to(tl.int64) * tq + rows, mask=inside, other=0)
        norm = tl.load(NORM + bh.to(tl.int64) * norm_rows + rows, mask=inside, other=HIDDEN)
        q = qd.load([b, h, i0, 0]).reshape(BM, D)
        x = scores(q, k, scale, cap, SOFTCAP, PRECISION)
        if HAS_BIAS:
            x += bias[None, :]
        x = hide(x, low, high, j)
        if HAS_BITS:
            query = tl.load(QUERY_BITS + bh.to(tl.int64) * tq + rows, mask=inside, other=0)
            x = hide_bits(x, query, key_bits)
        total += tl.sum(tl.math.exp2(x + norm[:, None]), 0)
    tl.store(OUT + (part * tl.num_programs(0) // parts + pid // parts).to(tl.int64) * BN + tl.arange(0, BN), total)


def columns(operands: Operands, norm: Tensor, keys: Tensor) -> Tensor:
    """Return Σ over the queries that count of A[i, j] for the keys `[B, C]`, `[B, H, C]` float32."""
    call, masks = operands.call, operands.masks
    b, h, tq, _ = call.q.shape
    g, count = call.k.shape[1], keys.shape[1]
    shape = tile("weights", call, operands.dim)
    index = keys[:, None, :, None].expand(-1, g, -1, operands.k.shape[3])
    chosen = aligned(operands.k.gather(2, index))
    k = TensorDescriptor(chosen, list(chosen.shape), list(chosen.stride()), [1, 1, shape.keys, operands.dim])
    blocks = -(-count // shape.keys)
    parts = max(1, min(16, -(-tq // (shape.queries * 32))))
    steps = -(-tq // (shape.queries * parts))
    out = torch.empty(parts, b, h, blocks * shape.keys, dtype=torch.float32, device=call.q.device)
    _columns[(b * h * blocks * parts,)](
        operands.describe("q", shape.queries), k, out, norm, keys.to(torch.int32).contiguous(), masks.low, masks.high,
        masks.query_bits, masks.key_bits, masks.bias, operands.factor, h, call.group_size, tq, call.k.shape[2], count,
        blocks, parts, steps, norm.shape[2], int(masks.bias is not None and masks.bias.shape[0] > 1), operands.scale,
        operands.cap, BM=shape.queries, BN=shape.keys, D=operands.dim, SOFTCAP=call.softcap is not None,
        PRECISION=operands.precision, HAS_BITS=masks.query_bits is not None, HAS_BIAS=masks.bias is not None,
        HAS_FACTOR=operands.factor is not None, num_warps=shape.warps, num_stages=2,
    )  # fmt: skip
    return out.sum(0)[..., :count]
