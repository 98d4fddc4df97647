"""Weights at chosen keys of every query: rows of K are gathered and multiplied with the query, in float32."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._operands import Operands
from ._tiles import HIDDEN, tanh


@triton.jit
def _gather(
    Q, K, OUT, NORM, INDEX, LOW, HIGH, QUERY_BITS, KEY_BITS, BIAS, FACTOR,
    H, group, tq, tk, d_size, repeats, blocks, norm_rows, bias_batch, scale, cap,
    q_b, q_h, q_t, k_b, k_h, k_t,
    BM: tl.constexpr, D: tl.constexpr, SOFTCAP: tl.constexpr, HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_FACTOR: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0) % blocks
    bh = tl.program_id(0) // blocks
    b = (bh // H).to(tl.int64)
    h = (bh % H).to(tl.int64)
    g = h // group
    rows = block * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    inside = rows < tq
    wide = rows.to(tl.int64)
    q_at = Q + b * q_b + h * q_h + wide[:, None] * q_t + d[None, :]
    q = tl.load(q_at, mask=inside[:, None] & (d < d_size)[None, :], other=0.0).to(tl.float32)
    norm = tl.load(NORM + bh.to(tl.int64) * norm_rows + rows, mask=inside, other=HIDDEN)
    low = tl.load(LOW + b * tq + rows, mask=inside, other=0)
    high = tl.load(HIGH + b * tq + rows, mask=inside, other=0)
    if HAS_FACTOR:
        scale = scale * tl.load(FACTOR + h)
    mass = tl.zeros([BM], tl.float32)
    asked = tl.zeros([BM], tl.int32)
    for repeat in range(repeats):
        index = tl.load(INDEX + (b * tq + rows) * repeats + repeat, mask=inside, other=-1)
        asked = asked | (index >= 0).to(tl.int32)
        seen = (index >= low) & (index < high)
        j = tl.where(seen, index, 0).to(tl.int64)
        if HAS_BITS:
            query = tl.load(QUERY_BITS + bh.to(tl.int64) * tq + rows, mask=inside, other=0)
            seen = seen & ((query & tl.load(KEY_BITS + b * tk + j)) == 0)
        k_at = K + b * k_b + g * k_h + j[:, None] * k_t + d[None, :]
        k = tl.load(k_at, mask=seen[:, None] & (d < d_size)[None, :], other=0.0).to(tl.float32)
        x = tl.sum(q * k, 1) * scale
        if SOFTCAP:
            x = cap * tanh(x)
        if HAS_BIAS:
            x += tl.load(BIAS + (b * bias_batch * H + h) * tk + j)
        mass += tl.where(seen, tl.math.exp2(x + norm), 0.0)
    nan = float("nan")
    counts = (norm > 0.5 * HIDDEN) & (asked != 0)
    tl.store(OUT + bh.to(tl.int64) * tq + rows, tl.where(counts, mass, nan), mask=inside)


def mass_at(operands: Operands, norm: Tensor, index: Tensor) -> Tensor:
    """Return Σ_r A[i, index[i, r]] `[B, H, Tq]` float32, NaN where every index is -1 or a query does not count.

    Args:
        index: `[B, Tq]` or `[B, Tq, R]` key indices, -1 for none.
    """
    call, masks = operands.call, operands.masks
    b, h, tq, d = call.q.shape
    index = (index.unsqueeze(-1) if index.dim() == 2 else index).to(torch.int32).contiguous()
    out = torch.empty(b, h, tq, dtype=torch.float32, device=call.q.device)
    block = max(16, 8192 // operands.dim)
    blocks = -(-tq // block)
    _gather[(b * h * blocks,)](
        operands.q, operands.k, out, norm, index, masks.low, masks.high, masks.query_bits, masks.key_bits, masks.bias,
        operands.factor, h, call.group_size, tq, call.k.shape[2], d, index.shape[2], blocks, norm.shape[2],
        int(masks.bias is not None and masks.bias.shape[0] > 1), operands.scale, operands.cap,
        *operands.q.stride()[:3], *operands.k.stride()[:3],
        BM=block, D=operands.dim, SOFTCAP=call.softcap is not None, HAS_BITS=masks.query_bits is not None,
        HAS_BIAS=masks.bias is not None, HAS_FACTOR=operands.factor is not None, num_warps=4,
    )  # fmt: skip
    return out
