"""Which blocks of queries see a tile of keys, and which of them see all of it."""

from __future__ import annotations

import torch
from torch import Tensor


def bounds(low: Tensor, high: Tensor, tk: int, queries: int, keys: int) -> Tensor:
    """Return `[B, tiles, 4]` int32: of each tile of `keys` keys the query rows first, full, full_end, last.

    All are multiples of `queries`. Rows first..last hold every query that sees any of the tile's keys; in rows
    full..full_end every query that sees anything sees all of them.

    Args:
        low: `[B, Tq]`, see `_masks.Masks`.
        high: likewise.
        tk: keys.
        queries: queries a block.
        keys: keys a tile.
    """
    low, high = (_blocks(x, queries) for x in (low, high))
    sees = high > low
    never = torch.full_like(low, tk)
    lowest = torch.where(sees, low, never).amin(-1)
    highest = torch.where(sees, high, 0).amax(-1)
    latest = torch.where(sees, low, 0).amax(-1)
    earliest = torch.where(sees, high, never).amin(-1)
    some = sees.any(-1)
    # Blocks that see nothing take their neighbours' values, so that every sequence stays sorted.
    lowest = lowest.flip(-1).cummin(-1).values.flip(-1)
    highest = highest.cummax(-1).values
    latest = latest.cummax(-1).values
    earliest = torch.where(some, earliest, 0).cummax(-1).values
    tiles = -(-tk // keys)
    start = torch.arange(tiles, device=low.device, dtype=torch.int32).expand(low.shape[0], -1).contiguous() * keys
    stop = (start + keys).clamp(max=tk)
    first = torch.searchsorted(highest, start, right=True)
    last = torch.searchsorted(lowest, stop)
    full = torch.searchsorted(earliest, start + keys)
    full_end = torch.searchsorted(latest, start, right=True)
    last = torch.maximum(last, first)
    full = torch.minimum(torch.maximum(full, first), last)
    full_end = torch.maximum(torch.minimum(full_end, last), full)
    return (torch.stack([first, full, full_end, last], -1) * queries).to(torch.int32).contiguous()


def first_rows(bounds: Tensor, slots: int) -> Tensor:
    """Return `[B, slots]` int32: the first query row that each slot's program visits; the largest int where none.

    Args:
        bounds: `[B, tiles, 4]` of `bounds`.
    """
    b, tiles, _ = bounds.shape
    part = ((torch.arange(tiles, device=bounds.device) + 1) * 2 * slots - 1) // tiles
    slot = torch.minimum(part, 2 * slots - 1 - part)
    first = torch.where(bounds[..., 3] > bounds[..., 0], bounds[..., 0], torch.iinfo(torch.int32).max)
    rows = torch.full((b, slots), torch.iinfo(torch.int32).max, dtype=torch.int32, device=bounds.device)
    return rows.scatter_reduce_(1, slot.expand(b, -1), first, "amin")


def _blocks(values: Tensor, size: int) -> Tensor:
    """`[B, Tq]` → `[B, blocks, size]`; added queries see nothing."""
    return torch.nn.functional.pad(values, (0, -values.shape[-1] % size)).unflatten(-1, (-1, size))
