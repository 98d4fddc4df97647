"""Chosen rows of the logits, for the largest weights of chosen queries."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...contract import TopKeys
from ._operands import Operands
from ._tiles import HIDDEN, scores, visible

ROWS = 16
BUDGET = 256 << 20
"""Bytes of logits at a time."""


@triton.jit
def _logits(
    Q, K, OUT, QUERIES, LOW, HIGH, QUERY_BITS, KEY_BITS, BIAS, FACTOR,
    H, group, tq, tk, d_size, count, blocks, tiles, bias_batch, scale, cap,
    q_b, q_h, q_t, k_b, k_h, k_t,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_FACTOR: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    t = pid % tiles
    block = pid // tiles % blocks
    bh = pid // (tiles * blocks)
    b = (bh // H).to(tl.int64)
    h = (bh % H).to(tl.int64)
    g = h // group
    own = block * BM + tl.arange(0, BM)
    inside = own < count
    rows = tl.load(QUERIES + b * count + own, mask=inside, other=0)
    d = tl.arange(0, D)
    j = t * BN + tl.arange(0, BN)
    wide = (d < d_size)[None, :]
    q = tl.load(Q + b * q_b + h * q_h + rows.to(tl.int64)[:, None] * q_t + d[None, :], mask=wide, other=0.0)
    k_at = K + b * k_b + g * k_h + j.to(tl.int64)[:, None] * k_t + d[None, :]
    k = tl.load(k_at, mask=(j < tk)[:, None] & wide, other=0.0)
    if HAS_FACTOR:
        scale = scale * tl.load(FACTOR + h)
    x = scores(q, k, scale, cap, SOFTCAP, PRECISION)
    bits = tl.zeros([BM], tl.int32)
    if HAS_BITS:
        bits = tl.load(QUERY_BITS + (b * H + h) * tq + rows)
    low = tl.load(LOW + b * tq + rows)
    high = tl.load(HIGH + b * tq + rows)
    bias_at = (b * bias_batch * H + h) * tk
    x = visible(x, low, high, j, tk, bits, BIAS, bias_at, KEY_BITS, b * tk, HAS_BIAS, HAS_BITS)
    at = (bh.to(tl.int64) * count + own)[:, None] * tk + j[None, :]
    tl.store(OUT + at, x, mask=inside[:, None] & (j < tk)[None, :])


def top_keys(operands: Operands, norm: Tensor, top: TopKeys) -> tuple[Tensor, Tensor]:
    """Return weights and keys, `[B, H, N, k]` each, largest first; NaN and -1 where there is none."""
    call = operands.call
    b, h = call.q.shape[:2]
    count, tk = top.queries.shape[1], call.k.shape[2]
    weights = torch.full((b, h, count, top.k), math.nan, dtype=torch.float32, device=call.q.device)
    keys = torch.full((b, h, count, top.k), -1, dtype=torch.int64, device=call.q.device)
    k = min(top.k, tk)
    step = max(1, BUDGET // (b * h * tk * 4))
    for first in range(0, count, step):
        chosen = top.queries[:, first : first + step].long()
        index = chosen.clamp(min=0)
        best, best_keys = logits_of(operands, index).topk(k, dim=-1)
        own = norm.gather(2, index[:, None].expand(-1, h, -1))
        present = (best > HIDDEN.value / 2) & ((chosen >= 0)[:, None] & (own > HIDDEN.value / 2))[..., None]
        place = (slice(None), slice(None), slice(first, first + step), slice(0, k))
        weights[place] = torch.where(present, torch.exp2(best + own[..., None]), math.nan)
        keys[place] = torch.where(present, best_keys, -1)
    return weights, keys


def logits_of(operands: Operands, queries: Tensor) -> Tensor:
    """Return the logits `[B, H, N, Tk]` of the queries `[B, N]` in log2 units, HIDDEN where nothing is seen."""
    call, masks = operands.call, operands.masks
    b, h, tq, d = call.q.shape
    tk, count = call.k.shape[2], queries.shape[1]
    out = torch.empty(b, h, count, tk, dtype=torch.float32, device=call.q.device)
    keys = 64 if operands.dim > 128 or call.q.dtype == torch.float32 else 128
    blocks, tiles = -(-count // ROWS), -(-tk // keys)
    _logits[(b * h * blocks * tiles,)](
        operands.q, operands.k, out, queries.to(torch.int32).contiguous(), masks.low, masks.high, masks.query_bits,
        masks.key_bits, masks.bias, operands.factor, h, call.group_size, tq, tk, d, count, blocks, tiles,
        int(masks.bias is not None and masks.bias.shape[0] > 1), operands.scale, operands.cap,
        *operands.q.stride()[:3], *operands.k.stride()[:3],
        BM=ROWS, BN=keys, D=operands.dim, SOFTCAP=call.softcap is not None, PRECISION=operands.precision,
        HAS_BITS=masks.query_bits is not None, HAS_BIAS=masks.bias is not None, HAS_FACTOR=operands.factor is not None,
        num_warps=4,
    )  # fmt: skip
    return out
