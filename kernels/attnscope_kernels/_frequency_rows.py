"""What both implementations of contextual agreement share: the sampled rows, what they see and their top K keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .contract import AttentionCall

ROW_BYTES = 1 << 28
"""Bytes of everything with a key axis that is alive at once (logits, masks)."""
KEY_BYTES = 1 << 26
"""Bytes of the copy of K in the dtype of arithmetic."""

Part = tuple[slice, slice, slice]
"""Slices of the batch, of the KV heads and of the rows of each KV head."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The sampled rows of a call by KV head: row s of KV head g is query head g·r + member[s], r = H / G.

    Attributes:
        call: the attention call.
        q: `[B, G, S, D]` in the dtype of arithmetic, query by query and head by head within a query.
        index: `[B, S]` query index, -1 where nothing is asked or the query is not valid.
        member: `[S]` query head within its KV group.
    """

    call: AttentionCall
    q: Tensor
    index: Tensor
    member: Tensor


@dataclass(frozen=True, eq=False)
class TopRows:
    """What rows see, and their top keys by the whole logit.

    Attributes:
        seen: `[b, g, s, Tk]` bool, the visible keys.
        top: `[b, g, s, Tk]` bool, exactly `kept` keys a row.
        kept: `[b, g, s]` K = min(k, visible keys); 0 where the row sees no key or a visible logit is not finite.
    """

    seen: Tensor
    top: Tensor
    kept: Tensor


def sampled_rows(call: AttentionCall, queries: Tensor, multiple: int = 1) -> Rows:
    """Gather the rows of `queries` `[B, N]`; the last one is repeated until there are a multiple of `multiple`."""
    b, g, r = call.q.shape[0], call.k.shape[1], call.group_size
    count = queries.shape[1] * r
    place = torch.arange(-(-count // multiple) * multiple, device=call.q.device).clamp(max=count - 1)
    member, index = place % r, queries.long()[:, place // r]
    at = index.clamp(min=0)
    batch = torch.arange(b, device=call.q.device)[:, None, None]
    group = torch.arange(g, device=call.q.device)[None, :, None]
    dtype = torch.float64 if call.q.dtype == torch.float64 else torch.float32
    q = call.q.detach().unflatten(1, (g, r))[batch, group, member, at[:, None]].to(dtype)
    asked = (index >= 0) & call.valid_queries.gather(1, at)
    return Rows(call, q, torch.where(asked, index, -1), member)


def merge_rows(rows: Tensor, call: AttentionCall, queries: Tensor) -> Tensor:
    """Return `[B, H, N, C]` from one value a row and chunk `[B, G, S, C]`."""
    b, g, _, c = rows.shape
    n, r = queries.shape[1], call.group_size
    return rows[:, :, : n * r].view(b, g, n, r, c).permute(0, 1, 3, 2, 4).reshape(b, g * r, n, c)


def halves(x: Tensor, pairing: str) -> tuple[Tensor, Tensor]:
    """Return views of the first and the second dimension of every pair, `[..., D / 2]` each.

    Example:
        >>> [half.tolist() for half in halves(torch.arange(4), "half")]
        [[0, 1], [2, 3]]
        >>> [half.tolist() for half in halves(torch.arange(4), "adjacent")]
        [[0, 2], [1, 3]]
    """
    if pairing == "adjacent":
        return x[..., 0::2], x[..., 1::2]
    return x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]


def parts(rows: Rows, row_bytes: int, multiple: int = 1) -> Iterator[Part]:
    """Yield parts in row-major order that stay within ROW_BYTES: whole prompts, whole KV heads or some of their rows.

    Rows come in multiples of `multiple`, and at least so many.
    """
    b, g, s, _ = rows.q.shape
    room = ROW_BYTES // row_bytes
    step = min(s, max(multiple, room // multiple * multiple))
    groups = min(g, max(1, room // s))
    batches = max(1, room // (s * g))
    for batch in range(0, b, batches):
        for group in range(0, g, groups):
            for first in range(0, s, step):
                yield (
                    slice(batch, min(batch + batches, b)),
                    slice(group, min(group + groups, g)),
                    slice(first, min(first + step, s)),
                )


def top_rows(rows: Rows, part: Part, ks: Sequence[int]) -> list[TopRows]:
    """Compute a part's whole logits, what it sees and its top keys, one for each of `ks`."""
    seen = _visible(rows, part)
    logits = _logits(rows, part)
    finite = (logits.isfinite() | ~seen).all(-1)
    logits.masked_fill_(~seen, -torch.inf)
    found = []
    for k in ks:
        kept = torch.where(finite, seen.sum(-1).clamp(max=k), 0)
        found.append(TopRows(seen, top_set(logits, seen, kept, k), kept))
    return found


def top_set(values: Tensor, seen: Tensor, kept: Tensor, k: int) -> Tensor:
    """Return which entries of `values` `[..., T]` are the `kept` `[...]` largest: of equals those of lowest index.

    Entries that are not `seen` hold -inf and are never taken; no more than k are.

    Example:
        >>> values = torch.tensor([3.0, 1.0, 3.0, 3.0])
        >>> top_set(values, torch.ones(4, dtype=torch.bool), torch.tensor(2), 2).tolist()
        [True, False, True, False]
    """
    best = values.topk(min(k, values.shape[-1]), dim=-1).values
    last = best.gather(-1, (kept - 1).clamp(min=0).unsqueeze(-1))
    above, equal = values > last, (values == last) & seen
    missing = (kept - above.sum(-1)).unsqueeze(-1)
    if bool((equal.sum(-1, keepdim=True) > missing).any()):
        equal &= equal.cumsum(-1, dtype=torch.int32) <= missing
    return (above | equal) & (kept > 0).unsqueeze(-1)


def _logits(rows: Rows, part: Part) -> Tensor:
    """Return q·k `[b, g, s, Tk]`, products of the inputs added in the dtype of arithmetic."""
    batch, group, some = part
    q, k = rows.q[batch, group, some], rows.call.k.detach()[batch, group]
    b, g, keys, d = k.shape
    logits = q.new_empty(*q.shape[:3], keys)
    step = max(1, KEY_BYTES // (b * g * d * q.element_size()))
    for first in range(0, keys, step):
        piece = k[:, :, first : first + step].to(q.dtype)
        logits[..., first : first + step] = q @ piece.transpose(-1, -2)
    return logits


def _visible(rows: Rows, part: Part) -> Tensor:
    """Return `[b, g, s, Tk]` bool by AttentionCall's rule; all False where nothing is asked."""
    call, (batch, group, some) = rows.call, part
    index = rows.index[batch, some]
    i = (call.offset + index).to(torch.int32)[:, None, :, None]
    j = torch.arange(call.k.shape[2], device=index.device, dtype=torch.int32)
    seen = (index >= 0)[:, None, :, None] & ((j <= i) if call.causal else (j >= 0))
    if call.window is not None:
        seen = seen & (j > i - call.window) & (j < i + call.window)
    if call.key_valid is not None:
        seen = seen & call.key_valid[batch, None, None]
    at = index.clamp(min=0)
    segments = call.segments
    if segments is not None:
        own = segments[batch].gather(1, call.offset + at)
        seen = seen & (segments[batch, None, None] == own[:, None, :, None])
    seen = seen.expand(-1, rows.q[batch, group].shape[1], -1, -1)
    for knockout in call.knockouts:
        heads = knockout.heads.view(-1, call.group_size)[group][:, rows.member[some]]
        removed = heads & knockout.queries[batch].gather(1, at)[:, None]
        seen = seen & ~(removed.unsqueeze(-1) & knockout.keys[batch, None, None])
    return seen
