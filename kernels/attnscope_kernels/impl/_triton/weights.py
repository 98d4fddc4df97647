"""The second pass: given every row's normaliser, one visit of each tile gives column sums and row statistics.

One program keeps a tile of keys and streams the queries, so that column sums stay in registers. Row sums of a query are
added up over the keys that one program works on in a slot of scratch memory that no other program touches, and the
slots are summed afterwards in a fixed order: no atomics. A program takes an early and a late part of the keys, so that
under a causal mask all programs do the same amount of work. Scratch is one row of the whole per slot, for as many
heads at once as fit `SCRATCH` bytes.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._operands import Operands, processors
from ._sums import sum_rows
from ._tiles import hide, hide_bits, pair_rows, scores, thread_sums
from ._tuning import tile

SCRATCH = 512 << 20
"""Bytes of row sums at once."""
CACHED = 24 << 20
"""Bytes of queries that the programs that run at once may stream, to stay in the second-level cache of an H100."""
LONG = 2
"""With fewer heads at once, two programs a multiprocessor were measured to be faster than three."""


@triton.jit
def _rows_of(
    NORM, ROWS, WEIGHT, norm_at, rows_at, i0, last, first_visit,
    BM: tl.constexpr, ROW: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Load what the visit of a block of queries needs; asked one block ahead, so that nothing waits for it."""
    rows = i0 + tl.arange(0, BM)
    two = tl.arange(0, 2)
    inside = rows < last
    old = rows < last * (1 - first_visit)
    norm = tl.load(NORM + norm_at + rows, mask=inside, other=0.0)
    sums = tl.zeros([BM, 2], tl.float32)
    weight = tl.zeros([BM], tl.float32)
    if ROW:
        sums = tl.load(ROWS + (rows_at + rows)[:, None] * 2 + two[None, :], mask=old[:, None], other=0.0)
    if WEIGHTED:
        weight = tl.load(WEIGHT + rows, mask=inside, other=0.0)
    return norm, sums, weight


@triton.jit
def _visit(
    qd, k, b, h, norm, sums, weight, ROWS, LOW, HIGH, QUERY_BITS, key_bits, bias, rows_at, masks_at,
    bits_at, i0, j0, tq, scale, cap, received, largest, band,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    MASKED: tl.constexpr, HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, RECEIVED: tl.constexpr,
    LARGEST: tl.constexpr, ROW: tl.constexpr, BAND: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    rows = i0 + tl.arange(0, BM)
    two = tl.arange(0, 2)
    q = qd.load([b, h, i0, 0]).reshape(BM, D)
    x = scores(q, k, scale, cap, SOFTCAP, PRECISION)
    if HAS_BIAS:
        x += bias[None, :]
    if MASKED:
        low = tl.load(LOW + masks_at + rows, mask=rows < tq, other=0)
        high = tl.load(HIGH + masks_at + rows, mask=rows < tq, other=0)
        x = hide(x, low, high, j0 + tl.arange(0, BN))
        if HAS_BITS:
            x = hide_bits(x, tl.load(QUERY_BITS + bits_at + rows, mask=rows < tq, other=0), key_bits)
    x = x + norm[:, None]
    p = tl.math.exp2(x)
    pairs = pair_rows(p * weight[:, None] if WEIGHTED else p, False)
    if RECEIVED:
        received += pairs
    if LARGEST:
        largest = tl.maximum(largest, pair_rows(p, True))
    if ROW:
        new = tl.join(tl.sum(p * x, 1), tl.max(p, 1))
        new = tl.where(two[None, :] == 0, sums + new, tl.maximum(sums, new))
        tl.store(ROWS + (rows_at + rows)[:, None] * 2 + two[None, :], new)
    if BAND:
        band += thread_sums(pairs)
    return received, largest, band


@triton.jit
def _flush(BANDS, bands_at, segment, band, BM: tl.constexpr):
    """Add what one band gathered to scratch; every other segment is a band."""
    entries = tl.arange(0, 2 * BM)
    counted = entries < 2 * BM * (segment % 2)
    to = BANDS + (bands_at + segment // 2) * 2 * BM + entries
    tl.store(to, tl.load(to, mask=counted, other=0.0) + band, mask=counted)


@triton.jit
def _sweep(
    qd, k, b, h, first, last, ROWS, BANDS, EDGES, NORM, WEIGHT, LOW, HIGH, QUERY_BITS, key_bits, bias, norm_at, rows_at,
    bands_at, masks_at, bits_at, j0, tq, first_visit, scale, cap, received, largest, band, segment, edge,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    MASKED: tl.constexpr, HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, RECEIVED: tl.constexpr,
    LARGEST: tl.constexpr, ROW: tl.constexpr, BAND: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Visit the blocks of queries first <= i0 < last, both multiples of BM; `edge` is where the segment ends."""
    norm, sums, weight = _rows_of(NORM, ROWS, WEIGHT, norm_at, rows_at, first, last, first_visit, BM, ROW, WEIGHTED)
    for i0 in range(first, last, BM):
        norm_1, sums_1, weight_1 = _rows_of(
            NORM, ROWS, WEIGHT, norm_at, rows_at, i0 + BM, last, first_visit, BM, ROW, WEIGHTED
        )
        received, largest, band = _visit(
            qd, k, b, h, norm, sums, weight, ROWS, LOW, HIGH, QUERY_BITS, key_bits, bias, rows_at, masks_at, bits_at,
            i0, j0, tq, scale, cap, received, largest, band, D, BM, BN, SOFTCAP, PRECISION, MASKED, HAS_BITS, HAS_BIAS,
            RECEIVED, LARGEST, ROW, BAND, WEIGHTED,
        )  # fmt: skip
        norm, sums, weight = norm_1, sums_1, weight_1
        if BAND:
            if i0 + BM == edge:
                _flush(BANDS, bands_at, segment, band, BM)
                band = band * 0.0
                segment += 1
                edge = j0 + tl.load(EDGES + segment + 1)
    return received, largest, band, segment, edge


@triton.jit
def _weights(
    qd, kd, RECEIVED_OUT, LARGEST_OUT, ROWS, BANDS, NORM, WEIGHT, BOUNDS, EDGES, LOW, HIGH, QUERY_BITS, KEY_BITS,
    TILE_BITS, HEAD_BITS, BIAS, TILE_BIAS, FACTOR,
    bh_first, heads, H, group, tq, tk, tiles, slots, segments, norm_rows, bias_batch, scale, cap,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    HAS_BITS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_FACTOR: tl.constexpr, RECEIVED: tl.constexpr,
    LARGEST: tl.constexpr, ROW: tl.constexpr, BAND: tl.constexpr, WEIGHTED: tl.constexpr, NESTED: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(0) % slots
    own = tl.program_id(0) // slots
    bh = bh_first + own
    b = bh // H
    h = bh % H
    g = h // group
    if HAS_FACTOR:
        scale = scale * tl.load(FACTOR + h)
    cols = tl.arange(0, BN)
    norm_at = bh.to(tl.int64) * norm_rows
    scratch = (slot * heads + own).to(tl.int64)
    rows_at = scratch * norm_rows
    bands_at = scratch * (segments // 2)
    masks_at = b.to(tl.int64) * tq
    bits_at = bh.to(tl.int64) * tq
    column_at = bh.to(tl.int64) * tk
    first_visit = 1 if NESTED else 0
    any_bits = 0
    if HAS_BITS:
        any_bits = tl.load(HEAD_BITS + bh)
    for half in range(2):
        part = slot if half == 0 else 2 * slots - 1 - slot
        for t in range(part * tiles // (2 * slots), (part + 1) * tiles // (2 * slots)):
            at = BOUNDS + (b * tiles + t) * 4
            begin = tl.load(at)
            full_begin = tl.load(at + 1)
            full_stop = tl.load(at + 2)
            stop = tl.load(at + 3)
            j0 = t * BN
            j = j0 + cols
            k = kd.load([b, g, j0, 0]).reshape(BN, D)
            received = pair_rows(tl.zeros([BM, BN], tl.float32), False)
            largest = pair_rows(tl.zeros([BM, BN], tl.float32), False)
            key_bits = tl.zeros([BN], tl.int32)
            bias = tl.zeros([BN], tl.float32)
            if HAS_BITS or HAS_BIAS:
                extra = 0
                if HAS_BITS:
                    extra = tl.load(TILE_BITS + b * tiles + t) & any_bits
                    key_bits = tl.load(KEY_BITS + b.to(tl.int64) * tk + j, mask=j < tk, other=0)
                if HAS_BIAS:
                    row = (b * bias_batch * H + h).to(tl.int64)
                    extra = extra | tl.load(TILE_BIAS + row * tiles + t)
                    bias = tl.load(BIAS + row * tk + j, mask=j < tk, other=0.0)
                if extra != 0:
                    full_stop = full_begin  # every block is masked
            band = thread_sums(pair_rows(tl.zeros([BM, BN], tl.float32), False))
            segment = begin * 0
            edge = begin * 0
            if BAND:
                for following in range(1, segments):
                    segment += (begin - j0 >= tl.load(EDGES + following)).to(tl.int32)
                edge = j0 + tl.load(EDGES + segment + 1)
            received, largest, band, segment, edge = _sweep(
                qd, k, b, h, begin, full_begin, ROWS, BANDS, EDGES, NORM, WEIGHT, LOW, HIGH, QUERY_BITS, key_bits,
                bias, norm_at, rows_at, bands_at, masks_at, bits_at, j0, tq, first_visit, scale, cap, received, largest,
                band, segment, edge, D, BM, BN, SOFTCAP, PRECISION, True, HAS_BITS, HAS_BIAS, RECEIVED, LARGEST,
                ROW, BAND, WEIGHTED,
            )  # fmt: skip
            received, largest, band, segment, edge = _sweep(
                qd, k, b, h, full_begin, full_stop, ROWS, BANDS, EDGES, NORM, WEIGHT, LOW, HIGH, QUERY_BITS, key_bits,
                bias, norm_at, rows_at, bands_at, masks_at, bits_at, j0, tq, first_visit, scale, cap, received, largest,
                band, segment, edge, D, BM, BN, SOFTCAP, PRECISION, False, False, False, RECEIVED, LARGEST,
                ROW, BAND, WEIGHTED,
            )  # fmt: skip
            received, largest, band, segment, edge = _sweep(
                qd, k, b, h, full_stop, stop, ROWS, BANDS, EDGES, NORM, WEIGHT, LOW, HIGH, QUERY_BITS, key_bits,
                bias, norm_at, rows_at, bands_at, masks_at, bits_at, j0, tq, first_visit, scale, cap, received, largest,
                band, segment, edge, D, BM, BN, SOFTCAP, PRECISION, True, HAS_BITS, HAS_BIAS, RECEIVED, LARGEST,
                ROW, BAND, WEIGHTED,
            )  # fmt: skip
            if BAND:
                _flush(BANDS, bands_at, segment, band, BM)
            if NESTED:
                if stop > begin:
                    first_visit = 0
            if RECEIVED:
                tl.store(RECEIVED_OUT + column_at + j, tl.sum(tl.sum(received, 0), 0), mask=j < tk)
            if LARGEST:
                tl.store(LARGEST_OUT + column_at + j, tl.max(tl.max(largest, 0), 0), mask=j < tk)
            tl.debug_barrier()  # other threads of this program read these rows of scratch in the next tile


@dataclass(frozen=True, eq=False)
class Weights:
    """What the pass gave; what was not asked for is None.

    Attributes:
        received: `[B, H, Tk]` float32.
        received_max: likewise.
        entropy: `[B, H, Tq]` float32, NaN where a query does not count.
        max_prob: likewise.
        bands: `[B, H, n]` float32: the mass of each band that was asked for.
    """

    received: Tensor | None
    received_max: Tensor | None
    entropy: Tensor | None
    max_prob: Tensor | None
    bands: Tensor | None


def weights(
    operands: Operands,
    norm: Tensor,
    *,
    received: bool = False,
    received_max: bool = False,
    entropy: bool = False,
    max_prob: bool = False,
    bands: Tensor | None = None,
    column_weights: Tensor | None = None,
) -> Weights:
    """Run the pass.

    Args:
        operands: the call.
        norm: `[B, H, rows]` of the forward kernel, HIDDEN on rows that do not count and beyond the last query.
        bands: `[2n + 2]` int32, increasing multiples of a tile's queries: band i holds the tiles whose first query row
            minus first key is in bands[2i + 1]..bands[2i + 2]; the first and last entries lie beyond every tile.
        column_weights: `[rows]` factor of each query in `received`; None means 1.
    """
    call, masks = operands.call, operands.masks
    b, h, tq, _ = call.q.shape
    tk, device, rows = call.k.shape[2], call.q.device, norm.shape[2]
    long = streamed(operands, rows) < LONG
    shape = tile("weights of long rows" if long else "weights", call, operands.dim)
    edges = masks.bounds(tk, shape.queries, shape.keys)
    tiles = edges.shape[1]
    nested = call.causal and call.window is None and call.segments is None
    row = entropy or max_prob
    segments = 1 if bands is None else bands.shape[0] - 1

    def empty(wanted: bool, *size: int) -> Tensor | None:
        return torch.empty(size, dtype=torch.float32, device=device) if wanted else None

    columns, largest = empty(received, b, h, tk), empty(received_max, b, h, tk)
    entropies, maxima = empty(entropy, b, h, tq), empty(max_prob, b, h, tq)
    totals = empty(bands is not None, b, h, segments // 2)
    slots, at_once = _slots(operands, tiles, rows, shape.programs)
    heads = _heads(b * h, at_once, slots * (8 * row * rows + 8 * shape.queries * (segments // 2)))
    start = torch.zeros(b, slots, dtype=torch.int32, device=device)
    if nested:
        start = masks.first_rows(tk, shape.queries, shape.keys, slots)
    has_bits, has_bias = masks.query_bits is not None, masks.bias is not None
    for first in range(0, b * h, heads):
        count = min(heads, b * h - first)
        make = torch.empty if nested else torch.zeros
        scratch = make(slots, count, rows, 2, dtype=torch.float32, device=device) if row else None
        band = None
        if totals is not None:
            band = torch.zeros(slots, count, segments // 2, 2 * shape.queries, dtype=torch.float32, device=device)
        _weights[(slots * count,)](
            operands.describe("q", shape.queries), operands.describe("k", shape.keys), columns, largest, scratch,
            band, norm, column_weights, edges, bands, masks.low, masks.high, masks.query_bits, masks.key_bits,
            masks.tile_bits(shape.keys) if has_bits else None, masks.head_bits if has_bits else None, masks.bias,
            masks.tile_bias(shape.keys) if has_bias else None, operands.factor,
            first, count, h, call.group_size, tq, tk, tiles, slots, segments, rows,
            int(masks.bias is not None and masks.bias.shape[0] > 1), operands.scale, operands.cap,
            D=operands.dim, BM=shape.queries, BN=shape.keys, SOFTCAP=call.softcap is not None,
            PRECISION=operands.precision, HAS_BITS=has_bits, HAS_BIAS=has_bias,
            HAS_FACTOR=operands.factor is not None, RECEIVED=received, LARGEST=received_max, ROW=row,
            BAND=bands is not None, WEIGHTED=column_weights is not None, NESTED=nested, **shape.launch(),
        )  # fmt: skip
        if scratch is not None:
            sum_rows(scratch, start, norm, operands.sink, entropies, maxima, first, tq)
        if band is not None and totals is not None:
            totals.view(b * h, -1)[first : first + count] = band.sum(dim=(0, 3))
    return Weights(columns, largest, entropies, maxima, totals)


def streamed(operands: Operands, rows: int) -> int:
    """Return how many heads' queries stay in the second-level cache."""
    return max(1, CACHED // (rows * operands.dim * operands.q.element_size()))


def _slots(operands: Operands, tiles: int, rows: int, programs: int) -> tuple[int, int]:
    """Return how many programs share a head, and how many heads then run at once.

    Few heads at once means that the programs stream the same queries, which then come from the cache.
    """
    device = operands.q.device
    running = programs * processors(device.index if device.type == "cuda" else None)
    heads = operands.q.shape[0] * operands.q.shape[1]
    at_once = min(streamed(operands, rows), heads, running)
    slots = max(1, min(running // at_once, (tiles + 1) // 2))
    return slots, max(1, running // slots)


def _heads(heads: int, at_once: int, bytes_each: int) -> int:
    """Return how many heads one launch takes: as many as scratch allows, in whole waves of `at_once`."""
    if bytes_each == 0:
        return heads
    fitting = max(1, SCRATCH // bytes_each)
    return min(heads, fitting // at_once * at_once or fitting)
