"""How a call is cut into blocks of queries and parts of heads, so that extra memory is linear in T."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..contract import AttentionCall

# Logits in flight: two such buffers stay in a CPU's last-level cache, or fill a GPU (float32 bytes = 4x).
ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 25}
QUERIES = {"cpu": 64, "cuda": 256}
FEWEST_QUERIES = 32


@dataclass(frozen=True)
class Part:
    """Batch rows and heads that are worked on together: whole KV groups, or a piece of one group.

    Attributes:
        batch: slice of the batch.
        groups: slice of the KV heads.
        members: slice of the query heads within a group.
        heads: the same query heads as a slice of H.
    """

    batch: slice
    groups: slice
    members: slice
    heads: slice


@dataclass(frozen=True)
class Block:
    """Queries `queries` at key positions `start` onwards, and the keys `low`..`high` that any of them may see."""

    queries: slice
    start: int
    low: int
    high: int


def queries_per_block(call: AttentionCall) -> int:
    """Return how many queries a block holds when all heads are worked on together, within the element budget."""
    b, h, tq, _ = call.q.shape
    widest = max((block.high - block.low for block in blocks(call, FEWEST_QUERIES)), default=1)
    fitting = _elements(call) // (b * h * widest)
    return min(tq, max(FEWEST_QUERIES, min(QUERIES.get(call.q.device.type, 64), fitting)))


def blocks(call: AttentionCall, size: int) -> Iterator[Block]:
    """Yield the query blocks in order, each with its visible key range (never empty)."""
    tq, tk = call.q.shape[2], call.k.shape[2]
    for first in range(0, tq, size):
        last = min(first + size, tq) - 1
        start, end = call.offset + first, call.offset + last
        low = 0 if call.window is None else start - call.window + 1
        high = end + 1 if call.causal else tk
        if call.window is not None and not call.causal:
            high = min(high, end + call.window)
        low = min(max(low, 0), tk - 1)
        yield Block(slice(first, last + 1), start, low, max(min(high, tk), low + 1))


def parts(call: AttentionCall, size: int, width: int) -> list[Part]:
    """Return the parts whose logits `[heads, size, width]` fit the element budget (one head at least)."""
    b, h = call.q.shape[:2]
    g, r = call.k.shape[1], call.group_size
    room = max(1, _elements(call) // (size * width))
    batches = _cut(b, max(1, room // h))
    groups = _cut(g, max(1, min(room, h) // r))
    members = _cut(r, min(room, r))
    return [
        Part(batch, group, member, slice(group.start * r + member.start, (group.stop - 1) * r + member.stop))
        for batch in batches
        for group in groups
        for member in members
    ]


def _elements(call: AttentionCall) -> int:
    return ELEMENTS.get(call.q.device.type, 1 << 20)


def _cut(length: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]
