"""Which keys of which heads are sinks: what an edit is given, and where these keys stand in a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.errors import TaskError, UnknownHeadError
from ..core.ids import HeadId
from ._positions import at_positions, token_positions

SinkKeys = Mapping[int, Sequence[int]] | Mapping[HeadId, Sequence[int]]
"""Layer, or head → positions of keys, each counted from 0 at its prompt's first token."""


def prompts_of(keys: SinkKeys | tuple[SinkKeys, ...]) -> tuple[SinkKeys, ...]:
    """Return one mapping for every row of a batch, or one alone for all of them."""
    return keys if isinstance(keys, tuple) else (keys,)


def check_sinks(what: str, heads: Sequence[HeadId] | None, keys: SinkKeys | tuple[SinkKeys, ...]) -> None:
    """Check what an edit was given, as far as it can be without a model.

    Raises:
        UnknownHeadError: no head is named.
        TaskError: no positions, a negative one, layers and heads mixed, or a head without any; it is named.
    """
    if heads is not None and not heads:
        raise UnknownHeadError(what, found="no heads", expected="at least one, or None for all")
    rows = prompts_of(keys)
    if not any(rows):
        raise TaskError(what, found="no keys", expected="positions of at least one layer or head")
    for row in rows:
        if len({isinstance(place, HeadId) for place in row}) > 1:
            raise TaskError(what, found="keys of layers and of heads together", expected="one of both")
        for place, positions in row.items():
            if not isinstance(place, (int, HeadId)):
                raise TaskError(what, found=f"keys of {place!r}", expected="a layer or a HeadId")
            wrong = [p for p in positions if not isinstance(p, int) or isinstance(p, bool) or p < 0]
            if wrong:
                raise TaskError(f"{what} of {_name(place)}", found=f"positions {wrong}", expected="0 or more")
    for head in heads or ():
        if not any(head in row or head.layer in row for row in rows):
            raise TaskError(f"{what} of {head}", found="no keys of this head or layer", expected="some")


def heads_with_sinks(
    call: AttentionCall, heads: Sequence[HeadId] | None, keys: SinkKeys | tuple[SinkKeys, ...]
) -> list[int]:
    """Return the call's query heads that have sinks in it, in order.

    Raises:
        UnknownHeadError: the layer has no such head.
        TaskError: keys are given for another number of prompts.
    """
    rows, h, tk = prompts_of(keys), call.q.shape[1], call.k.shape[2]
    named = {head for head in heads or () if head.layer == call.layer}
    named |= {head for row in rows for head in row if isinstance(head, HeadId) and head.layer == call.layer}
    for head in sorted(named):
        if not 0 <= head.head < h:
            raise UnknownHeadError(f"head {head}", expected=f"a query head below {h} in layer {call.layer}")
    if len(rows) not in (1, call.q.shape[0]):
        raise TaskError("keys of sinks", found=f"{len(rows)} prompts", expected=f"{call.q.shape[0]}, as the batch has")
    chosen = range(h) if heads is None else sorted(head.head for head in named & set(heads))
    places = [HeadId(call.layer, head) for head in chosen]
    return [place.head for place in places if any(p < tk for row in rows for p in _positions(row, place))]


def sink_mask(call: AttentionCall, heads: Sequence[int], keys: SinkKeys | tuple[SinkKeys, ...]) -> Tensor:
    """Return `[B or 1, len(heads), Tk]` bool: the keys that are sinks of these query heads.

    Raises:
        TaskError: a sliding cache has dropped keys, so that positions are not known.

    Example:
        >>> q = torch.zeros(1, 2, 3, 4)
        >>> sink_mask(AttentionCall(0, q, q, q, 1.0), [1], {0: (0, 2)}).tolist()
        [[[True, False, True]]]
    """
    rows, tk = prompts_of(keys), call.k.shape[2]
    found = [
        (number, column, position)
        for number, row in enumerate(rows)
        for column, head in enumerate(heads)
        for position in _positions(row, HeadId(call.layer, head))
        if position < tk
    ]
    table = torch.zeros(len(rows), len(heads), tk, dtype=torch.bool, device=call.q.device)
    if found:
        table[tuple(torch.tensor(found, device=call.q.device).T)] = True
    return at_positions(token_positions(call), table)


def _positions(row: SinkKeys, head: HeadId) -> Sequence[int]:
    by_place: Mapping[int | HeadId, Sequence[int]] = row  # type: ignore[assignment]
    return by_place.get(head, by_place.get(head.layer, ()))


def _name(place: int | HeadId) -> str:
    return str(place) if isinstance(place, HeadId) else f"layer {place}"
