"""What every kernel computes on one tile: products, scores in log2 units, and what is hidden.

HIDDEN is finite, so that 0 · HIDDEN = 0; a score below HIDDEN / 2 was hidden.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

HIDDEN = tl.constexpr(-1e30)
LN2 = tl.constexpr(0.6931471805599453)
WIDEN = tl.constexpr(INTERPRETED)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """a @ b in float32; the interpreter multiplies in float32 because it has no bfloat16 product."""
    if WIDEN:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def tanh(x):
    """tanh to float32 accuracy: a series near 0, where 1 − 2/(1 + e^2x) would cancel."""
    square = x * x
    series = x * (
        1 + square * (-0.3333333333 + square * (0.1333333333 + square * (-0.0539682540 + square * 0.02186949)))
    )
    decay = tl.math.exp2(-2.8853900817779268 * tl.abs(x))  # e^-2|x|
    far = (1 - decay) / (1 + decay)
    return tl.where(tl.abs(x) < 0.25, series, tl.where(x < 0, -far, far))


@triton.jit
def scores(q, k, scale, cap, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr):
    """Logits in log2 units `[BM, BN]`; without a cap, scale holds log2 e; with one, cap does."""
    s = product(q, k.T, PRECISION)
    if SOFTCAP:
        return cap * tanh(s * scale)
    return s * scale


@triton.jit
def hide(x, low, high, j):
    """Hide the keys outside each query's interval."""
    return tl.where((j[None, :] >= low[:, None]) & (j[None, :] < high[:, None]), x, HIDDEN)


@triton.jit
def hide_bits(x, query_bits, key_bits):
    """Hide the pairs that share a knockout bit."""
    return tl.where((query_bits[:, None] & key_bits[None, :]) == 0, x, HIDDEN)


@triton.jit
def visible(
    x, low, high, j, tk, bits, BIAS, bias_at, KEY_BITS, keys_at, HAS_BIAS: tl.constexpr, HAS_BITS: tl.constexpr
):
    """Add the bias of the keys `j` to the logits of one tile and hide what each row does not see."""
    if HAS_BIAS:
        x += tl.load(BIAS + bias_at + j, mask=j < tk, other=0.0)[None, :]
    x = hide(x, low, high, j)
    if HAS_BITS:
        x = hide_bits(x, bits, tl.load(KEY_BITS + keys_at + j, mask=j < tk, other=0))
    return x


@triton.jit
def pair_rows(p, COMBINE_MAX: tl.constexpr):
    """`[BM, BN]` → `[BM / 16, 8, BN]`: rows r and r + 8 of every 16 combined, which one thread holds."""
    BM: tl.constexpr = p.shape[0]
    BN: tl.constexpr = p.shape[1]
    if COMBINE_MAX:
        return tl.max(p.reshape(BM // 16, 2, 8, BN), 1)
    return tl.sum(p.reshape(BM // 16, 2, 8, BN), 1)


@triton.jit
def thread_sums(pairs):
    """`[BM / 16, 8, BN]` of `pair_rows` → `[2·BM]`: what one thread of a matrix unit holds, added up within it."""
    SIXTEENS: tl.constexpr = pairs.shape[0]
    BN: tl.constexpr = pairs.shape[2]
    some = tl.sum(pairs.reshape(SIXTEENS, 8, BN // 8, 4, 2), 4)
    return tl.sum(some, 2).reshape(SIXTEENS * 32)
