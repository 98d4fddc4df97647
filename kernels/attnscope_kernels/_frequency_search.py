"""Contextual agreement by counting: whole rows in torch, then the kernels' search for every chunk's threshold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ._frequency_rows import Rows, halves, merge_rows, parts, sampled_rows, top_rows
from ._frequency_triton import LARGEST, LOWEST, count_kernel, cut_kernel, intersect_kernel, narrow_kernel
from .contract import AttentionCall
from .errors import KernelError

ROWS = 8
"""Rows that share one read of K: their visibility is one byte a key."""
KEYS = 32
"""Keys a step of the kernels' loops; all loads of a step can be under way at once."""
WARPS = 4
PROGRAMS = 2048
"""Programs that fill a large GPU several times over; splits are shortened until there are as many."""
LONGEST_SPLIT, SHORTEST_SPLIT = 1024, 128
SEARCH_BYTES = 1 << 28
"""Bytes of everything that is kept for each search or row."""
ROW_ENTRY = 16
"""Bytes a key of a whole row: its logit, masks, and the running count where logits tie."""
PASSES = 96
"""More than the worst case: each pass halves a bracket's keys, or the next one quarters its integers (31 + 2·16)."""
CHECK_EVERY = 4
SAMPLE = 2048
"""Keys whose moments give the first pivots."""


@dataclass(frozen=True, eq=False)
class _Selected:
    """What the search needs to know of the whole rows.

    Attributes:
        bits: `[B, G, S / ROWS, splits · span]` uint8; bit i of a key: visible to row i of its ROWS rows.
        visible: `[splits, rows]` int16, visible keys of every split.
        kept: `[rows]` int32, K of every row; 0 where nothing is to be found.
        members: keys of all rows' top sets, row after row, in rising order.
        offsets: `[rows + 1]`, where each row's members begin.
    """

    bits: Tensor
    visible: Tensor
    kept: Tensor
    members: Tensor
    offsets: Tensor


def run(call: AttentionCall, queries: Tensor, k: int, pairing: str) -> Tensor:
    """Return contextual agreement `[B, H, N, C]` float32, for as many queries at a time as SEARCH_BYTES allows."""
    keys = call.k.detach()
    keys = keys if keys.stride(-1) == 1 else keys.contiguous()
    b, h, _, d = call.q.shape
    length = keys.shape[2]
    row_bytes = d // 2 * (10 * (length // LONGEST_SPLIT + 1) + 64) + length // ROWS + 16 * min(k, length)
    together = max(1, SEARCH_BYTES // (row_bytes * b * h))
    with torch.cuda.device_of(keys):
        done = [_agreement(call, keys, some, k, pairing) for some in queries.split(together, dim=1)]
    return torch.cat(done, dim=2)


def _agreement(call: AttentionCall, keys: Tensor, queries: Tensor, k: int, pairing: str) -> Tensor:
    rows = sampled_rows(call, queries, ROWS)
    b, g, s, d = rows.q.shape
    chunks, length = d // 2, keys.shape[2]
    width = 32 if -(-chunks // 32) * 32 <= -(-chunks // 16) * 16 else 16
    tiles = -(-chunks // width)
    span = _span(length, b * g * s // ROWS * tiles)
    selected = _select(rows, k, span)
    splits, padded = len(selected.visible), selected.bits.shape[-1]
    q = torch.cat(halves(rows.q, pairing), dim=-1).contiguous()
    shape = (s, g, keys.stride(0), keys.stride(1), keys.stride(2), 1 if pairing == "adjacent" else chunks)
    tile = {"CHUNKS": width, "KEYS": KEYS, "ADJACENT": pairing == "adjacent"}
    options = {"num_warps": WARPS, "enable_fp_fusion": False}

    searches = b * g * s * chunks
    pivots, scale, low, high, above_low, above_high = _start(rows, selected, pairing)
    counts = torch.empty(splits, 3, searches, dtype=torch.int16, device=keys.device)
    whole = (selected.bits == 255).unflatten(-1, (-1, KEYS)).all(-1).to(torch.uint8)
    for number in range(PASSES):
        if number % CHECK_EVERY == 0 and bool(pivots[0].isnan().all()):
            break
        count_kernel[(b * g * s // ROWS, tiles, splits)](
            keys, q, pivots, selected.bits, whole, above_low, above_high, counts, searches, chunks, length, padded,
            span, *shape, ROWS=ROWS, LANES=min(KEYS, 32 * WARPS // width), **tile, **options,
        )  # fmt: skip
        narrow_kernel[(-(-searches // 256),)](
            counts, pivots, low, high, above_low, above_high, selected.kept, scale, searches, chunks, splits,
            number, BLOCK=256, **options,
        )  # fmt: skip
    else:
        raise KernelError(
            f"frequency chunks of layer {call.layer}",
            found=f"thresholds still open after {PASSES} passes",
            expected="every one settled",
            fix="Ask for implementation='torch' and report this call.",
        )
    thresholds = (high ^ ((high >> 31) & 0x7FFFFFFF)).view(torch.float32)
    cuts = torch.zeros(searches, dtype=torch.int64, device=keys.device)
    missing = (selected.kept.repeat_interleave(chunks) - above_high.sum(0, dtype=torch.int32)).clamp(min=0)
    if bool((missing > 0).any()):
        equal = torch.where(missing > 0, above_low - above_high, 0).cumsum(0, dtype=torch.int32)
        split = (equal < missing).sum(0)
        before = torch.where(split > 0, equal.gather(0, (split - 1).clamp(min=0)[None])[0], 0)
        cut_kernel[(b * g * s, tiles)](
            keys, q, thresholds, selected.bits, split * span, missing - before, cuts, chunks, length, padded, span,
            *shape, ROWS=ROWS, **tile, **options,
        )  # fmt: skip
    out = torch.empty(b, g, s, chunks, dtype=torch.float32, device=keys.device)
    intersect_kernel[(b * g * s, tiles)](
        keys, q, thresholds, cuts, selected.members, selected.offsets, out, chunks, *shape, **tile, **options
    )
    return merge_rows(out, call, queries)


def _span(length: int, tiles: int) -> int:
    """Return how many keys a split holds: few enough that there are PROGRAMS programs."""
    span = LONGEST_SPLIT
    while span > SHORTEST_SPLIT and tiles * -(-length // span) < PROGRAMS:
        span //= 2
    return span


def _select(rows: Rows, k: int, span: int) -> _Selected:
    b, g, s, _ = rows.q.shape
    length, device = rows.call.k.shape[2], rows.q.device
    splits = -(-length // span)
    bits = torch.zeros(b, g, s // ROWS, splits * span, dtype=torch.uint8, device=device)
    visible = torch.empty(b, g, s, splits, dtype=torch.int16, device=device)
    kept = torch.empty(b, g, s, dtype=torch.int32, device=device)
    place = torch.arange(ROWS, dtype=torch.uint8, device=device).unsqueeze(-1)
    members = []
    for part in parts(rows, ROW_ENTRY * length, ROWS):
        (found,) = top_rows(rows, part, (k,))
        bytes_of = slice(part[2].start // ROWS, -(-part[2].stop // ROWS))
        packed = (found.seen.unflatten(2, (-1, ROWS)).to(torch.uint8) << place).sum(-2, dtype=torch.uint8)
        bits[part[0], part[1], bytes_of, :length] = packed
        padded = functional.pad(found.seen, (0, splits * span - length))
        visible[part] = padded.unflatten(-1, (splits, span)).sum(-1, dtype=torch.int16)
        kept[part] = found.kept.to(torch.int32)
        members.append(found.top.flatten(0, 2).nonzero()[:, 1])
    offsets = functional.pad(kept.flatten().long().cumsum(0), (1, 0))
    by_split = visible.view(-1, splits).T.contiguous()
    return _Selected(bits, by_split, kept.flatten(), torch.cat(members), offsets)


def _start(rows: Rows, selected: _Selected, pairing: str) -> tuple[Tensor, ...]:
    """Return pivots `[3, searches]`, the logits' scale, both ends, and the keys above each in every split.

    The first pivots are the normal distribution's, from the first two moments of a sample of the keys.
    """
    keys = rows.call.k.detach()
    k1, k2 = (half.to(rows.q.dtype) for half in halves(keys[:, :, :: -(-keys.shape[2] // SAMPLE)], pairing))
    q1, q2 = halves(rows.q, pairing)
    mean = q1 * k1.mean(2, keepdim=True) + q2 * k2.mean(2, keepdim=True)
    square = q1**2 * (k1**2).mean(2, keepdim=True) + q2**2 * (k2**2).mean(2, keepdim=True)
    square += 2 * q1 * q2 * (k1 * k2).mean(2, keepdim=True)
    chunks = mean.shape[-1]
    mean = mean.flatten().nan_to_num(0.0, 0.0, 0.0).clamp(-1e30, 1e30)
    scale = (square.flatten() - mean**2).clamp(min=0).sqrt().nan_to_num(0.0, 0.0, 0.0).clamp(max=1e30)
    kept, total = selected.kept, selected.visible.sum(0, dtype=torch.int32)
    z = torch.special.ndtri((1 - kept / total).nan_to_num(0.5).clamp(1e-6, 1 - 1e-6)).repeat_interleave(chunks)
    unsettled = ((kept > 0) & (kept < total)).repeat_interleave(chunks)
    pivots = torch.stack([torch.where(unsettled, mean + (z + step) * scale, torch.nan) for step in (-0.5, 0.0, 0.5)])
    low = torch.full_like(mean, LOWEST.value, dtype=torch.int32)
    high = torch.where(unsettled, torch.full_like(low, LARGEST.value), low)
    above_low = selected.visible.repeat_interleave(chunks, dim=1)
    return pivots, scale, low, high, above_low, torch.where(unsettled, torch.zeros_like(above_low), above_low)
