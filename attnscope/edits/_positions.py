"""Positions of a prompt's tokens among the keys, wherever the padding stands."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall

from ..core.errors import TaskError
from ._tokens import Positions, chosen


def token_positions(call: AttentionCall) -> Tensor | None:
    """Return the 0-based position of each key in its own prompt `[B, Tk]`, -1 on padding; None where it is its index.

    Only valid keys are counted, and packed segments are prompts of their own, so that padding on either side and
    batching change nothing.

    Raises:
        TaskError: a sliding cache may have dropped the prompt's first keys, so that no position is known.

    Example:
        >>> q = torch.zeros(1, 1, 3, 4)
        >>> token_positions(AttentionCall(0, q, q, q, 1.0, key_valid=torch.tensor([[False, True, True]]))).tolist()
        [[-1, 0, 1]]
    """
    if (
        call.window is not None
        and call.offset == call.window - 1 > 0
        and call.offset + call.q.shape[2] == call.k.shape[2]
    ):
        raise TaskError(
            f"positions of keys in layer {call.layer}",
            found=f"a cache of {call.offset} keys under a window of {call.window}, which may have dropped earlier ones",
            expected="every key of the prompt",
            fix="Run the prompt as one forward, or edit only layers without a sliding window.",
        )
    if call.key_valid is None and call.segments is None:
        return None
    b, tk = call.k.shape[0], call.k.shape[2]
    valid = torch.ones(b, tk, dtype=torch.bool, device=call.k.device) if call.key_valid is None else call.key_valid
    counted = valid.long().cumsum(1)
    if call.segments is not None:
        every = call.segments.contiguous()
        first = torch.searchsorted(every, every)
        counted = counted - (counted - valid.long()).gather(1, first)
    return (counted - 1).masked_fill(~valid, -1)


def at_positions(positions: Tensor | None, table: Tensor) -> Tensor:
    """Return a table over positions as one over keys.

    Args:
        positions: of each key in its prompt `[B, Tk]` (-1 = none), or None where a key's position is its index.
        table: `[B or 1, n, Tk]` bool, by position.

    Returns:
        Tensor: `[B or 1, n, Tk]` bool.

    Example:
        >>> at_positions(torch.tensor([[-1, 0, 1]]), torch.tensor([[[True, False, False]]])).tolist()
        [[[False, True, False]]]
    """
    if positions is None:
        return table
    b, tk = positions.shape
    index = positions.clamp(min=0)[:, None].expand(b, table.shape[1], tk)
    return table.expand(b, -1, -1).gather(2, index) & (positions >= 0)[:, None]


def hide(call: AttentionCall, hidden: Tensor) -> AttentionCall:
    """Return the call with keys `[B or 1, H, Tk]` bool hidden from every query of a head, in its `key_bias`.

    Example:
        >>> q = torch.zeros(1, 1, 2, 4)
        >>> hide(AttentionCall(0, q, q, q, 1.0), torch.tensor([[[True, False]]])).key_bias.tolist()
        [[[-inf, 0.0]]]
    """
    bias = torch.zeros(hidden.shape, device=hidden.device) if call.key_bias is None else call.key_bias
    return call.replace(key_bias=bias.masked_fill(hidden, -math.inf))


def query_positions(call: AttentionCall) -> Tensor:
    """Return the position of each query in its prompt `[B or 1, Tq]`, -1 on padding.

    Example:
        >>> q = torch.zeros(1, 1, 3, 4)
        >>> query_positions(AttentionCall(0, q[:, :, 2:], q, q, 1.0)).tolist()
        [[2]]
    """
    tq, positions = call.q.shape[2], token_positions(call)
    if positions is None or not call.self_attention:
        return torch.arange(call.offset, call.offset + tq, device=call.q.device)[None]
    return positions[:, call.offset : call.offset + tq]


def queries_at(what: str, call: AttentionCall, where: Positions, prompts: tuple[int, ...] | None) -> Tensor | None:
    """Return the queries at some positions `[B, Tq]` bool; None for all.

    Raises:
        TaskError: positions differ by prompt, and the prompts are not known; or no position is known.
    """
    if where is None:
        return None
    return chosen(what, where, query_positions(call).expand(call.q.shape[0], -1), prompts)
