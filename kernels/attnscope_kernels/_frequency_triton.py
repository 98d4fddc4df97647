"""The kernels of contextual agreement: a search for each chunk's K-th largest partial logit that never stores one.

A *search* is one chunk of one sampled row. It holds a bracket (low, high] of values around the K-th largest, and how
many keys of every *split* (a run of keys) lie above each end. One pass counts the keys above three pivots inside the
bracket; the counts narrow it. A program does ROWS rows × CHUNKS chunks of one split, and leaves at once where none of
its searches has a candidate there, so that the last passes, which settle few searches, touch few keys.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

STEPS_OUTWARDS = tl.constexpr(2)
"""Passes that look for an end of the bracket at the logits' own scale, before halving the float32 themselves."""
LOWEST = tl.constexpr(-2139095041)
"""Ordered integer of -inf, below every logit."""
LARGEST = tl.constexpr(2139095039)
"""Ordered integer of the largest finite float32, above which nothing lies."""


@triton.jit
def _ordered(value):
    """Map float32 to int32 in the same order, or back: it is its own inverse."""
    return value ^ ((value >> 31) & 0x7FFFFFFF)


@triton.jit
def _as_float(ordered):
    return _ordered(ordered).to(tl.float32, bitcast=True)


@triton.jit
def _above(logit, threshold):
    """Return 0 or -1: the sign of the difference costs one operation less than comparing and selecting.

    It orders as integers do: -0 is below +0, and the difference of two different float32 is never 0.
    """
    return (threshold - logit).to(tl.int32, bitcast=True) >> 31


@triton.jit
def _partial(q1, q2, k1, k2):
    """Return q1·k1 + q2·k2, with the same bits in every kernel; adding 0 first means that it is never -0."""
    return tl.fma(q1, k1, tl.fma(q2, k2, 0.0))


@triton.jit
def _load_pairs(at, inside, half, ADJACENT: tl.constexpr):
    """Load both dimensions of each pair, whose first is at `at` `[N, CHUNKS]`, as float32."""
    if ADJACENT:
        both = tl.load(at[:, :, None] + tl.arange(0, 2)[None, None, :], mask=inside[:, :, None], other=0.0)
        k1, k2 = tl.split(both)
    else:
        k1 = tl.load(at, mask=inside, other=0.0)
        k2 = tl.load(at + half, mask=inside, other=0.0)
    return k1.to(tl.float32), k2.to(tl.float32)


@triton.jit
def _count_step(
    at, bits, inside, real, stride, half, q1, q2, p0, p1, p2, n0, n1, n2,
    ROWS: tl.constexpr, KEYS: tl.constexpr, LANES: tl.constexpr, ADJACENT: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Subtract one from n0, n1, n2 for every visible key above each pivot, among KEYS keys."""
    lane = tl.arange(0, LANES)
    for done in tl.static_range(0, KEYS, LANES):
        loaded = real if WHOLE else real & (done + lane < inside)[:, None]
        k1, k2 = _load_pairs(at + done * stride, loaded, half, ADJACENT)
        logit = _partial(q1, q2, k1[None, :, :], k2[None, :, :])
        if not WHOLE:
            seen = tl.load(bits + done + lane).to(tl.int32)[None, :] >> tl.arange(0, ROWS)[:, None]
            logit = tl.where((seen & 1)[:, :, None] != 0, logit, float("-inf"))
        n0 += _above(logit, p0)
        n1 += _above(logit, p1)
        n2 += _above(logit, p2)
    return n0, n1, n2


@triton.jit
def count_kernel(
    k, q, pivots, bits, whole, above_low, above_high, counts, searches, chunks, length, padded, span, rows_per_head,
    heads, stride_b, stride_h, stride_t, half,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, KEYS: tl.constexpr, LANES: tl.constexpr, ADJACENT: tl.constexpr,
):  # fmt: skip
    """Count, per search, the keys of one split above its three pivots."""
    group = tl.program_id(0).to(tl.int64)
    split = tl.program_id(2).to(tl.int64)
    c = tl.program_id(1) * CHUNKS + tl.arange(0, CHUNKS)
    row = group * ROWS + tl.arange(0, ROWS)
    search = row[:, None] * chunks + c[None, :]
    real = (c < chunks)[None, :]
    p0 = tl.load(pivots + search, mask=real, other=float("nan"))
    state = split * searches + search
    low = tl.load(above_low + state, mask=real, other=0)
    high = tl.load(above_high + state, mask=real, other=0)
    candidates = ((low != high) & (p0 == p0)).to(tl.int32)
    if tl.max(tl.max(candidates, 1), 0) == 0:
        return
    p1 = tl.load(pivots + searches + search, mask=real, other=0.0)
    p2 = tl.load(pivots + 2 * searches + search, mask=real, other=0.0)
    at_q = q + 2 * row[:, None] * chunks + c[None, :]
    q1 = tl.load(at_q, mask=real, other=0.0)
    q2 = tl.load(at_q + chunks, mask=real, other=0.0)
    q1, q2, p0, p1, p2 = q1[:, None, :], q2[:, None, :], p0[:, None, :], p1[:, None, :], p2[:, None, :]
    n0 = tl.zeros([ROWS, LANES, CHUNKS], tl.int32)
    n1 = n0
    n2 = n0
    head = group * ROWS // rows_per_head
    step: tl.constexpr = 2 if ADJACENT else 1
    lane = tl.arange(0, LANES)
    at = k + (head // heads) * stride_b + (head % heads) * stride_h + lane[:, None] * stride_t + step * c[None, :]
    bits += group * padded
    whole += group * (padded // KEYS)
    for j in range(split * span, tl.minimum(split * span + span, length), KEYS):
        here = at + j * stride_t
        if tl.load(whole + j // KEYS) != 0:
            n0, n1, n2 = _count_step(
                here, bits, KEYS, real, stride_t, half, q1, q2, p0, p1, p2, n0, n1, n2,
                ROWS, KEYS, LANES, ADJACENT, True,
            )  # fmt: skip
        else:
            n0, n1, n2 = _count_step(
                here, bits + j, length - j, real, stride_t, half, q1, q2, p0, p1, p2, n0, n1, n2,
                ROWS, KEYS, LANES, ADJACENT, False,
            )  # fmt: skip
    out = counts + 3 * split * searches + search
    tl.store(out, (-tl.sum(n0, 1)).to(tl.int16), mask=real)
    tl.store(out + searches, (-tl.sum(n1, 1)).to(tl.int16), mask=real)
    tl.store(out + 2 * searches, (-tl.sum(n2, 1)).to(tl.int16), mask=real)


@triton.jit
def _pick(which, unchanged, first, second, third):
    return tl.where(which == 0, unchanged, tl.where(which == 1, first, tl.where(which == 2, second, third)))


@triton.jit(do_not_specialize=["number"])
def narrow_kernel(
    counts, pivots, low_of, high_of, above_low, above_high, wanted_of, scale_of, searches, chunks, splits, number,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Narrow every open search's bracket by the counts of a pass, and choose its next pivots (NaN once it is done).

    A search is done when exactly K keys lie above `high` (which then is the pivot that hit), or when `high` is the
    K-th largest value itself because no float32 lies between the ends.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < searches
    p0 = tl.load(pivots + i, mask=inside, other=float("nan"))
    p1 = tl.load(pivots + searches + i, mask=inside, other=0.0)
    p2 = tl.load(pivots + 2 * searches + i, mask=inside, other=0.0)
    is_open = p0 == p0
    wanted = tl.load(wanted_of + i // chunks, mask=inside, other=0)
    f_low = tl.zeros([BLOCK], tl.int32)
    f_high, n0, n1, n2 = f_low, f_low, f_low, f_low
    for s in range(splits):
        low = tl.load(above_low + s * searches + i, mask=is_open, other=0).to(tl.int32)
        high = tl.load(above_high + s * searches + i, mask=is_open, other=0).to(tl.int32)
        counted = is_open & (low != high)
        at = counts + 3 * s * searches + i
        f_low += low
        f_high += high
        n0 += tl.load(at, mask=counted, other=0).to(tl.int32) + tl.where(counted, 0, low)
        n1 += tl.load(at + searches, mask=counted, other=0).to(tl.int32) + tl.where(counted, 0, low)
        n2 += tl.load(at + 2 * searches, mask=counted, other=0).to(tl.int32) + tl.where(counted, 0, low)
    candidates = f_low - f_high
    new_low = (n0 > wanted).to(tl.int32) + (n1 > wanted).to(tl.int32) + (n2 > wanted).to(tl.int32)
    new_high = (n0 < wanted).to(tl.int32) + (n1 < wanted).to(tl.int32) + (n2 < wanted).to(tl.int32)
    hit = (new_low + new_high) < 3
    new_high = tl.where(hit, new_high + 1, new_high)
    for s in range(splits):
        low = tl.load(above_low + s * searches + i, mask=is_open, other=0)
        high = tl.load(above_high + s * searches + i, mask=is_open, other=0)
        counted = is_open & (low != high)
        at = counts + 3 * s * searches + i
        c0 = tl.where(counted, tl.load(at, mask=counted, other=0), low)
        c1 = tl.where(counted, tl.load(at + searches, mask=counted, other=0), low)
        c2 = tl.where(counted, tl.load(at + 2 * searches, mask=counted, other=0), low)
        low = _pick(new_low, low, c0, c1, c2)
        high = _pick(new_high, high, c2, c1, c0)
        tl.store(above_low + s * searches + i, low, mask=is_open)
        tl.store(above_high + s * searches + i, high, mask=is_open)
    f_low = _pick(new_low, f_low, n0, n1, n2)
    f_high = _pick(new_high, f_high, n2, n1, n0)
    o0 = _ordered(p0.to(tl.int32, bitcast=True))
    o1 = _ordered(p1.to(tl.int32, bitcast=True))
    o2 = _ordered(p2.to(tl.int32, bitcast=True))
    low = tl.load(low_of + i, mask=is_open, other=0)
    high = tl.load(high_of + i, mask=is_open, other=0)
    low = _pick(new_low, low, o0, o1, o2)
    high = _pick(new_high, high, o2, o1, o0)
    tl.store(low_of + i, low, mask=is_open)
    tl.store(high_of + i, high, mask=is_open)
    width = high.to(tl.int64) - low.to(tl.int64)
    done = hit | (width <= 1)
    unbounded = (low == LOWEST) | (high == LARGEST)
    slow = (2 * (f_low - f_high) > candidates) & ~(unbounded & (number < STEPS_OUTWARDS))
    scale = tl.load(scale_of + i, mask=is_open, other=0.0)
    for target in tl.static_range(0, 3):
        value = _guess(target, low, high, f_low, f_high, wanted, scale)
        pivot = _ordered(value.to(tl.int32, bitcast=True)).to(tl.int64)
        pivot = tl.where(slow, low + width * (target + 1) // 4, pivot)
        pivot = tl.minimum(tl.maximum(pivot, low.to(tl.int64) + 1), high.to(tl.int64) - 1)
        value = tl.where(done, float("nan"), _as_float(pivot.to(tl.int32)))
        tl.store(pivots + target * searches + i, value, mask=is_open)


@triton.jit
def _guess(target: tl.constexpr, low, high, f_low, f_high, wanted, scale):
    """Return the value above which about wanted + (1, 0, -1)[target] standard deviations of keys should lie.

    Between the ends the logarithm of the count is taken as linear in the value; the error of the count is that of a
    Brownian bridge. Where an end is unknown yet, it steps outwards from the known one by the logits' own scale.
    """
    a = tl.where(low == LOWEST, 0.0, _as_float(low))
    b = tl.where(high == LARGEST, 0.0, _as_float(high))
    total = (f_low - f_high).to(tl.float32)
    share = (f_low - wanted).to(tl.float32) / tl.maximum(total, 1.0)
    error = tl.sqrt(tl.maximum(total * share * (1.0 - share), 0.25))
    aim = wanted.to(tl.float32) + (1 - target) * error
    aim = tl.minimum(tl.maximum(aim, f_high.to(tl.float32) + 0.25), f_low.to(tl.float32) - 0.25)
    top = tl.log(f_low.to(tl.float32) + 0.5)
    bottom = tl.log(f_high.to(tl.float32) + 0.5)
    value = a + (b - a) * (top - tl.log(tl.maximum(aim, 0.0) + 0.5)) / tl.maximum(top - bottom, 1e-6)
    outwards: tl.constexpr = 4.0**target
    inwards: tl.constexpr = 4.0 ** (2 - target)
    value = tl.where(high == LARGEST, a + outwards * scale, value)
    return tl.where(low == LOWEST, b - inwards * scale, value)


@triton.jit
def cut_kernel(
    k, q, thresholds, bits, starts, missing_of, cuts, chunks, length, padded, span, rows_per_head, heads, stride_b,
    stride_h, stride_t, half, ROWS: tl.constexpr, CHUNKS: tl.constexpr, KEYS: tl.constexpr, ADJACENT: tl.constexpr,
):  # fmt: skip
    """Find, per tied search, the key after the last equal one that is taken, in the split where the count runs out."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * CHUNKS + tl.arange(0, CHUNKS)
    real = c < chunks
    search = row * chunks + c
    missing = tl.load(missing_of + search, mask=real, other=0)
    if tl.max(missing, 0) == 0:
        return
    start = tl.load(starts + search, mask=real, other=0)
    value = tl.load(thresholds + search, mask=real, other=0.0)[None, :]
    q1 = tl.load(q + 2 * row * chunks + c, mask=real, other=0.0)[None, :]
    q2 = tl.load(q + 2 * row * chunks + chunks + c, mask=real, other=0.0)[None, :]
    head = row // rows_per_head
    step: tl.constexpr = 2 if ADJACENT else 1
    at = k + (head // heads) * stride_b + (head % heads) * stride_h + step * c[None, :]
    before = tl.zeros([CHUNKS], tl.int32)
    cut = tl.zeros([CHUNKS], tl.int64)
    for first in range(0, span, KEYS):
        key = start[None, :] + first + tl.arange(0, KEYS)[:, None]
        inside = real[None, :] & (key < length)
        byte = tl.load(bits + (row // ROWS) * padded + key, mask=inside, other=0).to(tl.int32)
        seen = (byte >> (row % ROWS).to(tl.int32)) & 1
        k1, k2 = _load_pairs(at + key * stride_t, inside, half, ADJACENT)
        equal = ((_partial(q1, q2, k1, k2) == value) & (seen != 0)).to(tl.int32)
        order = before[None, :] + tl.cumsum(equal, 0)
        last = (equal != 0) & (order == missing[None, :])
        cut = tl.maximum(cut, tl.max(tl.where(last, key + 1, 0), 0))
        before += tl.sum(equal, 0)
    tl.store(cuts + search, cut, mask=real)


@triton.jit
def intersect_kernel(
    k, q, thresholds, cuts, members, offsets, out, chunks, rows_per_head, heads, stride_b, stride_h, stride_t, half,
    CHUNKS: tl.constexpr, KEYS: tl.constexpr, ADJACENT: tl.constexpr,
):  # fmt: skip
    """Write which share of a row's top keys every chunk's top keys hold; NaN where the row has none."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * CHUNKS + tl.arange(0, CHUNKS)
    real = c < chunks
    search = row * chunks + c
    threshold = tl.load(thresholds + search, mask=real, other=0.0)[None, :]
    cut = tl.load(cuts + search, mask=real, other=0)[None, :]
    q1 = tl.load(q + 2 * row * chunks + c, mask=real, other=0.0)[None, :]
    q2 = tl.load(q + 2 * row * chunks + chunks + c, mask=real, other=0.0)[None, :]
    head = row // rows_per_head
    step: tl.constexpr = 2 if ADJACENT else 1
    at = k + (head // heads) * stride_b + (head % heads) * stride_h + step * c[None, :]
    first, stop = tl.load(offsets + row), tl.load(offsets + row + 1)
    both = tl.zeros([CHUNKS], tl.int32)
    for i in range(first, stop, KEYS):
        place = i + tl.arange(0, KEYS)
        key = tl.load(members + place, mask=place < stop, other=0)[:, None]
        inside = real[None, :] & (place < stop)[:, None]
        k1, k2 = _load_pairs(at + key * stride_t, inside, half, ADJACENT)
        logit = _partial(q1, q2, k1, k2)
        taken = (_above(logit, threshold) != 0) | ((logit == threshold) & (key < cut))
        both += tl.sum((inside & taken).to(tl.int32), 0)
    share = both.to(tl.float32) / tl.maximum(stop - first, 1).to(tl.float32)
    tl.store(out + search, tl.where(stop > first, share, float("nan")), mask=real)


INTERPRETED = isinstance(count_kernel, InterpretedFunction)
"""Whether the kernels run in Triton's interpreter, and so on the CPU (TRITON_INTERPRET was set when they were made)."""
