"""Which tiles of keys each program of the weight pass takes."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Shares:
    """Tiles dealt to slots.

    Attributes:
        order: `[tiles]` int32, slot after slot; each slot's tiles ascend.
        starts: `[slots + 1]` int32, where each slot begins in `order`.
        slot: `[tiles]` int64, the slot of each tile.
    """

    order: Tensor
    starts: Tensor
    slot: Tensor


@lru_cache(maxsize=32)
def dealt(tiles: int, slots: int, causal: bool, device: torch.device) -> Shares:
    """Deal the tiles so that no slot has much more to do than another.

    Under a causal mask tile t of n is seen by queries in proportion to n − t.

    Example:
        >>> shares = dealt(4, 2, True, torch.device("cpu"))
        >>> shares.order.tolist(), shares.starts.tolist(), shares.slot.tolist()
        ([0, 3, 1, 2], [0, 2, 4], [0, 1, 1, 0])
    """
    work = [tiles - tile if causal else 1 for tile in range(tiles)]
    least = max(work[0], -(-sum(work) // slots))
    room, hands = least, _packed(work, slots, least)
    while hands is None:
        room += -(-least // 200)
        hands = _packed(work, slots, room)
    starts = [0]
    owner = [0] * tiles
    for slot, hand in enumerate(hands):
        starts.append(starts[-1] + len(hand))
        for tile in hand:
            owner[tile] = slot
    order = [tile for hand in hands for tile in hand]
    return Shares(
        torch.tensor(order, dtype=torch.int32).to(device),
        torch.tensor(starts, dtype=torch.int32).to(device),
        torch.tensor(owner).to(device),
    )


def _packed(work: list[int], slots: int, room: int) -> list[list[int]] | None:
    """Put each tile, the longest first, into the fullest slot that has room for it; None where one has none."""
    left = [(room, slot) for slot in range(slots)]
    hands: list[list[int]] = [[] for _ in range(slots)]
    for tile, needed in enumerate(work):
        at = bisect_left(left, (needed, -1))
        if at == slots:
            return None
        free, slot = left.pop(at)
        hands[slot].append(tile)
        insort(left, (free - needed, slot))
    return hands
