"""Flash forward with every mask and edit: z and, in the same pass, the statistics of each row.

One program takes a block of queries of one head and streams the keys. Hidden pairs cost what their tile costs: tiles
outside every interval are not visited, tiles that no mask cuts are not masked.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...contract import Want
from ._operands import Operands
from ._tiles import HIDDEN, LN2, hide, hide_bits, product, scores
from ._tuning import tile


@triton.jit
def _tile(
    kd, vd, q, b, h, g, j0, i, low, high, bits, KEY_BITS, BIAS, bias_row, tk, scale, cap, m, z, e, c, acc, flag, n_keys,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, MASKED: tl.constexpr, EXTRA: tl.constexpr,
    HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    OUTPUT: tl.constexpr, ENTROPY: tl.constexpr, DISTANCE: tl.constexpr,
):  # fmt: skip
    """Fold one tile of keys into the running maximum m, sum z, Σp·(x−m), Σp·distance and output."""
    j = j0 + tl.arange(0, BN)
    k = kd.load([b, g, j0, 0]).reshape(BN, D)
    if MASKED or EXTRA or SOFTCAP:
        x = scores(q, k, scale, cap, SOFTCAP, PRECISION)
    if EXTRA:
        if flag != 0:
            if HAS_BIAS:
                x += tl.load(BIAS + bias_row + j, mask=j < tk, other=0.0)[None, :]
            if HAS_BITS:
                x = hide_bits(x, bits, tl.load(KEY_BITS + n_keys + j, mask=j < tk, other=0))
    if MASKED:
        x = hide(x, low, high, j)
    if MASKED or EXTRA or SOFTCAP:
        new = tl.maximum(m, tl.max(x, 1))
        x = x - new[:, None]
    else:  # scaling after the maximum makes scaling and subtraction one instruction
        s = product(q, k.T, PRECISION)
        new = tl.maximum(m, tl.max(s, 1) * scale)
        x = s * scale - new[:, None]
    shrink = tl.math.exp2(m - new)
    p = tl.math.exp2(x)
    mass = tl.sum(p, 1)
    if ENTROPY:
        e = (e + (m - new) * z) * shrink + tl.sum(p * x, 1)
    if DISTANCE:
        away = tl.abs(i[:, None] - j[None, :]).to(tl.float32)
        c = c * shrink + tl.sum(p * away, 1)
    z = z * shrink + mass
    if OUTPUT:
        v = vd.load([b, g, j0, 0]).reshape(BN, DV)
        acc = acc * shrink[:, None] + product(p.to(v.dtype), v, PRECISION)
    return new, z, e, c, acc


@triton.jit
def _sweep(
    kd, vd, q, b, h, g, first, last, i, low, high, bits, KEY_BITS, BIAS, bias_row, TILE_BITS, TILE_BIAS, tiles_b,
    tiles_h, any_bits, tk, scale, cap, m, z, e, c, acc, n_keys,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, MASKED: tl.constexpr, EXTRA: tl.constexpr,
    HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    OUTPUT: tl.constexpr, ENTROPY: tl.constexpr, DISTANCE: tl.constexpr,
):  # fmt: skip
    """Fold the tiles first <= j0 < last; both are multiples of BN."""
    for j0 in range(first, last, BN):
        flag = 0
        if EXTRA:
            t = j0 // BN
            if HAS_BITS:
                flag = tl.load(TILE_BITS + tiles_b + t) & any_bits
            if HAS_BIAS:
                flag = flag | tl.load(TILE_BIAS + tiles_h + t)
        m, z, e, c, acc = _tile(
            kd, vd, q, b, h, g, j0, i, low, high, bits, KEY_BITS, BIAS, bias_row, tk, scale, cap, m, z, e, c, acc,
            flag, n_keys, BM, BN, D, DV, MASKED, EXTRA, HAS_BITS, HAS_BIAS, SOFTCAP, PRECISION, OUTPUT, ENTROPY,
            DISTANCE,
        )  # fmt: skip
    return m, z, e, c, acc


@triton.jit
def _sweeps(
    kd, vd, q, b, h, g, start, full, full_end, end, i, low, high, bits, KEY_BITS, BIAS, bias_row, TILE_BITS, TILE_BIAS,
    tiles_b, tiles_h, any_bits, tk, scale, cap, m, z, e, c, acc, n_keys,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, EXTRA: tl.constexpr,
    HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    OUTPUT: tl.constexpr, ENTROPY: tl.constexpr, DISTANCE: tl.constexpr,
):  # fmt: skip
    """Fold every visible tile: those that the intervals cut on the left, the whole ones, those cut on the right."""
    m, z, e, c, acc = _sweep(
        kd, vd, q, b, h, g, start, full, i, low, high, bits, KEY_BITS, BIAS, bias_row, TILE_BITS, TILE_BIAS, tiles_b,
        tiles_h, any_bits, tk, scale, cap, m, z, e, c, acc, n_keys, BM, BN, D, DV, True, EXTRA, HAS_BITS, HAS_BIAS,
        SOFTCAP, PRECISION, OUTPUT, ENTROPY, DISTANCE,
    )  # fmt: skip
    m, z, e, c, acc = _sweep(
        kd, vd, q, b, h, g, full, full_end, i, low, high, bits, KEY_BITS, BIAS, bias_row, TILE_BITS, TILE_BIAS,
        tiles_b, tiles_h, any_bits, tk, scale, cap, m, z, e, c, acc, n_keys, BM, BN, D, DV, False, EXTRA, HAS_BITS,
        HAS_BIAS, SOFTCAP, PRECISION, OUTPUT, ENTROPY, DISTANCE,
    )  # fmt: skip
    m, z, e, c, acc = _sweep(
        kd, vd, q, b, h, g, full_end, end, i, low, high, bits, KEY_BITS, BIAS, bias_row, TILE_BITS, TILE_BIAS, tiles_b,
        tiles_h, any_bits, tk, scale, cap, m, z, e, c, acc, n_keys, BM, BN, D, DV, True, EXTRA, HAS_BITS, HAS_BIAS,
        SOFTCAP, PRECISION, OUTPUT, ENTROPY, DISTANCE,
    )  # fmt: skip
    return m, z, e, c, acc


@triton.jit
def _forward(
    qd, kd, vd, Z, NORM, LSE, ENTROPIES, MAXIMA, DISTANCES, LOW, HIGH, VALID, QUERY_BITS, KEY_BITS, TILE_BITS,
    HEAD_BITS, BIAS, TILE_BIAS, FACTOR, SINK, OUT_SCALE, POSITIONS,
    H, group, tq, tk, dv, blocks, tiles, offset, scale, cap, norm_rows, bias_batch,
    z_b, z_h, z_t,
    BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, PRECISION: tl.constexpr,
    SOFTCAP: tl.constexpr, HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_FACTOR: tl.constexpr,
    HAS_SINK: tl.constexpr, HAS_OUT_SCALE: tl.constexpr, SKIP: tl.constexpr, CHOSEN: tl.constexpr,
    OUTPUT: tl.constexpr, WANT_NORM: tl.constexpr, WANT_LSE: tl.constexpr, ENTROPY: tl.constexpr,
    MAXIMUM: tl.constexpr, DISTANCE: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    block = blocks - 1 - pid % blocks  # the longest rows first
    bh = pid // blocks
    b = bh // H
    h = bh % H
    g = h // group
    rows = block * BM + tl.arange(0, BM)
    inside = rows < tq
    low = tl.load(LOW + b.to(tl.int64) * tq + rows, mask=inside, other=0)
    high = tl.load(HIGH + b.to(tl.int64) * tq + rows, mask=inside, other=0)
    sees = high > low
    start = tl.min(tl.where(sees, low, tk)) // BN * BN
    end = tl.cdiv(tl.max(tl.where(sees, high, 0)), BN) * BN
    full = tl.cdiv(tl.max(tl.where(sees, low, 0)), BN) * BN
    full_end = tl.min(tl.where(sees, high, tk)) // BN * BN
    full = tl.minimum(tl.maximum(full, start), end)
    full_end = tl.maximum(tl.minimum(full_end, end), full)
    if HAS_FACTOR:
        scale = scale * tl.load(FACTOR + h)
    if SKIP:
        end = tl.where(tl.load(OUT_SCALE + h) == 0, start, end)
        full = tl.minimum(full, end)
        full_end = tl.minimum(full_end, end)
    q = qd.load([b, h, block * BM, 0]).reshape(BM, D)
    i = rows + offset
    if CHOSEN:
        i = tl.load(POSITIONS + rows, mask=inside, other=0)
    m = tl.full([BM], HIDDEN, tl.float32)
    z = tl.zeros([BM], tl.float32)
    e = tl.zeros([BM], tl.float32)
    c = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, DV if OUTPUT else 16], tl.float32)
    bits = tl.zeros([BM], tl.int32)
    any_bits = 0
    any_extra = 0
    bias_row = (b * bias_batch * H + h).to(tl.int64) * tk
    tiles_h = (b * bias_batch * H + h) * tiles
    tiles_b = b * tiles
    n_keys = b.to(tl.int64) * tk
    if HAS_BITS:
        bits = tl.load(QUERY_BITS + bh.to(tl.int64) * tq + rows, mask=inside, other=0)
        any_bits = tl.load(HEAD_BITS + bh)
        any_extra = any_bits
    if HAS_BIAS:
        any_extra = any_extra | 1
    if HAS_BITS or HAS_BIAS:
        if any_extra != 0:
            m, z, e, c, acc = _sweeps(
                kd, vd, q, b, h, g, start, full, full_end, end, i, low, high, bits, KEY_BITS, BIAS, bias_row,
                TILE_BITS, TILE_BIAS, tiles_b, tiles_h, any_bits, tk, scale, cap, m, z, e, c, acc, n_keys, BM, BN, D,
                DV, True, HAS_BITS, HAS_BIAS, SOFTCAP, PRECISION, OUTPUT, ENTROPY, DISTANCE,
            )  # fmt: skip
        else:
            m, z, e, c, acc = _sweeps(
                kd, vd, q, b, h, g, start, full, full_end, end, i, low, high, bits, KEY_BITS, BIAS, bias_row,
                TILE_BITS, TILE_BIAS, tiles_b, tiles_h, any_bits, tk, scale, cap, m, z, e, c, acc, n_keys, BM, BN, D,
                DV, False, HAS_BITS, HAS_BIAS, SOFTCAP, PRECISION, OUTPUT, ENTROPY, DISTANCE,
            )  # fmt: skip
    else:
        m, z, e, c, acc = _sweeps(
            kd, vd, q, b, h, g, start, full, full_end, end, i, low, high, bits, KEY_BITS, BIAS, bias_row, TILE_BITS,
            TILE_BIAS, tiles_b, tiles_h, any_bits, tk, scale, cap, m, z, e, c, acc, n_keys, BM, BN, D, DV, False,
            HAS_BITS, HAS_BIAS, SOFTCAP, PRECISION, OUTPUT, ENTROPY, DISTANCE,
        )  # fmt: skip
    blind = (m < 0.5 * HIDDEN) | (~sees)  # a row that sees no key took part in its neighbours' full tiles
    most = m
    if HAS_SINK:
        sink = tl.load(SINK + h)
        top = tl.maximum(m, sink)
        shrink = tl.math.exp2(m - top)
        extra = tl.math.exp2(sink - top)
        if ENTROPY:
            e = (e + (m - top) * z) * shrink + extra * (sink - top)
        c = c * shrink
        z = z * shrink + extra
        if OUTPUT:
            acc = acc * shrink[:, None]
        m = top
    total = tl.where(blind, 1.0, z)
    lse = m + tl.log2(total)
    counts = inside & (~blind)
    counts = counts & (tl.load(VALID + b.to(tl.int64) * tq + rows, mask=inside, other=0) != 0)
    at = bh.to(tl.int64) * tq + rows
    nan = float("nan")
    if WANT_NORM:
        tl.store(NORM + bh.to(tl.int64) * norm_rows + rows, tl.where(counts, -lse, HIDDEN), mask=rows < norm_rows)
    if WANT_LSE:
        tl.store(LSE + at, tl.where(counts, lse * LN2, nan), mask=inside)
    if ENTROPY:
        entropy = tl.maximum((tl.log2(total) - e / total) * LN2, 0.0)
        tl.store(ENTROPIES + at, tl.where(counts, entropy, nan), mask=inside)
    if MAXIMUM:
        tl.store(MAXIMA + at, tl.where(counts, tl.math.exp2(most - lse), nan), mask=inside)
    if DISTANCE:
        tl.store(DISTANCES + at, tl.where(counts, c / total, nan), mask=inside)
    if OUTPUT:
        factor = tl.where(blind, 0.0, 1.0 / total)
        if HAS_OUT_SCALE:
            factor = factor * tl.load(OUT_SCALE + h)
        d = tl.arange(0, DV)
        place = b.to(tl.int64) * z_b + h.to(tl.int64) * z_h + rows.to(tl.int64)[:, None] * z_t + d[None, :]
        tl.store(Z + place, (acc * factor[:, None]).to(Z.dtype.element_ty), mask=inside[:, None] & (d < dv)[None, :])


@dataclass(frozen=True, eq=False)
class Forward:
    """What one pass over the rows gave; what was not asked for is None.

    Attributes:
        z: `[B, H, Tq, Dv]`, scaled by `head_output` but not patched.
        norm: `[B, H, N]` float32, N queries rounded up to a whole number of blocks: −lse in log2 units, HIDDEN where a
            query does not count; 2^(score + norm) is the weight.
        rows: statistics by name, `[B, H, Tq]` float32, NaN where a query does not count.
    """

    z: Tensor | None
    norm: Tensor | None
    rows: dict[str, Tensor]


ROUND = 128
"""Queries in `norm` are rounded up to this, a multiple of every kernel's block."""


def forward(operands: Operands, want: Want, *, norm: bool = False, positions: Tensor | None = None) -> Forward:
    """Run the forward kernel for `output`, `lse`, `entropy`, `max_prob`, `mean_distance` of a want.

    Args:
        operands: the call.
        want: what is asked.
        norm: whether `norm` is.
        positions: `[Tq]` int32 key positions of the queries where these were chosen; None means one after another.
    """
    call, masks = operands.call, operands.masks
    b, h, tq, _ = call.q.shape
    tk, dv, device = call.k.shape[2], call.v.shape[3], call.q.device
    shape = tile("forward" if want.output else "rows", call, operands.dim, operands.value_dim)
    z = torch.empty(b, tq, h, dv, dtype=call.q.dtype, device=device).transpose(1, 2) if want.output else None
    width = -(-tq // ROUND) * ROUND
    norms = torch.empty(b, h, width, dtype=torch.float32, device=device) if norm else None
    names = [name for name in ("lse", "entropy", "max_prob", "mean_distance") if getattr(want, name)]
    rows = {name: torch.empty(b, h, tq, dtype=torch.float32, device=device) for name in names}
    blocks = -(-(width if norm else tq) // shape.queries)
    out_scale = None
    if want.output and call.head_output is not None:
        out_scale = call.head_output.scale.detach().float().contiguous()
    has_bits, has_bias = masks.query_bits is not None, masks.bias is not None
    _forward[(b * h * blocks,)](
        operands.describe("q", shape.queries), operands.describe("k", shape.keys), operands.describe("v", shape.keys),
        z, norms, rows.get("lse"), rows.get("entropy"), rows.get("max_prob"), rows.get("mean_distance"),
        masks.low, masks.high, masks.valid, masks.query_bits, masks.key_bits,
        masks.tile_bits(shape.keys) if has_bits else None, masks.head_bits if has_bits else None,
        masks.bias, masks.tile_bias(shape.keys) if has_bias else None, operands.factor, operands.sink,
        out_scale, positions,
        h, call.group_size, tq, tk, dv, blocks, -(-tk // shape.keys), call.offset, operands.scale, operands.cap,
        width, int(masks.bias is not None and masks.bias.shape[0] > 1),
        *(z.stride()[:3] if z is not None else (0, 0, 0)),
        BM=shape.queries, BN=shape.keys, D=operands.dim, DV=operands.value_dim, PRECISION=operands.precision,
        SOFTCAP=call.softcap is not None, HAS_BITS=has_bits, HAS_BIAS=has_bias, HAS_FACTOR=operands.factor is not None,
        HAS_SINK=operands.sink is not None, HAS_OUT_SCALE=out_scale is not None,
        SKIP=out_scale is not None and not names and not norm, CHOSEN=positions is not None,
        OUTPUT=want.output, WANT_NORM=norm, WANT_LSE=want.lse, ENTROPY=want.entropy, MAXIMUM=want.max_prob,
        DISTANCE=want.mean_distance, num_warps=shape.warps, num_stages=shape.stages,
    )  # fmt: skip
    return Forward(z, norms, rows)
