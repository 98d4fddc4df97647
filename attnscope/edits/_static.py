"""Attention by distance alone, from sums of values over ranges of keys: no matrix, and no query is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

from attnscope_kernels import AttentionCall


def attend_by_distance(call: AttentionCall, weights: Tensor, edges: Sequence[int], sinks: Tensor) -> Tensor:
    """Return `[B, H, Tq, Dv]` float64: the mean of the visible values, weighted by distance.

    Each bin of distances costs one difference of running sums over the keys, so that work is linear in T.

    Args:
        call: causal, without knockouts; its queries, scales and caps do not matter, its key biases do.
        weights: `[H, bins]` of a key in each bin.
        edges: `[bins + 1]` of the bins, tokens.
        sinks: `[H]` weight that goes to no key.

    Example:
        >>> v = torch.tensor([[[[1.0], [3.0], [5.0]]]])
        >>> call = AttentionCall(0, v, v, v, 1.0)
        >>> attend_by_distance(call, torch.tensor([[3.0, 1.0]]), (0, 1, 2), torch.zeros(1)).flatten().tolist()
        [1.0, 2.5, 4.5]
    """
    b, h, tq, _ = call.q.shape
    reach = farthest(call)
    result = torch.empty(b, h, tq, call.v.shape[3], dtype=torch.float64, device=call.v.device)
    for head in range(h):
        before = _sums_before(call, _running(call, head), reach)
        total = result.new_zeros(b, tq, call.v.shape[3] + 1)
        for number, (low, high) in enumerate(pairwise(edges)):
            if low >= reach:
                break
            total.addcmul_(before(low) - before(min(high, reach)), weights[head, number].double())
        result[:, head] = (total[..., :-1] / (total[..., -1:] + sinks[head].double())).nan_to_num(0.0, 0.0, 0.0)
    return result


def _sums_before(call: AttentionCall, running: Tensor, reach: int) -> Callable[[int], Tensor]:
    """Return a function from a distance to the sums over each query's keys at least so far back `[B, Tq, Dv + 1]`."""
    tq = call.q.shape[2]
    if call.segments is None:
        padded = pad(running, (0, 0, reach, 0))
        first = reach + call.offset + 1
        return lambda distance: padded[:, first - distance : first - distance + tq]
    every = call.segments.contiguous()
    floor = torch.searchsorted(every, every)[:, call.offset : call.offset + tq]
    at = call.offset + torch.arange(tq, device=call.q.device)

    def gathered(distance: int) -> Tensor:
        index = torch.maximum(at - distance + 1, floor)
        return running.gather(1, index[..., None].expand(-1, -1, running.shape[2]))

    return gathered


def _running(call: AttentionCall, head: int) -> Tensor:
    """Return sums over the keys before each `[B, Tk + 1, Dv + 1]`: of values, and of ones."""
    b, tk = call.k.shape[0], call.k.shape[2]
    factor = torch.ones(b, tk, 1, dtype=torch.float64, device=call.v.device)
    if call.key_bias is not None:
        factor = factor * call.key_bias[:, head, :, None].double().exp()
    hidden = factor == 0 if call.key_valid is None else (factor == 0) | ~call.key_valid[..., None]
    values = torch.cat([call.v[:, head // call.group_size].double(), torch.ones_like(factor)], -1)
    values = (values * factor).masked_fill(hidden, 0)
    return torch.cat([values.new_zeros(b, 1, values.shape[2]), values.cumsum(1)], 1)


def farthest(call: AttentionCall) -> int:
    """Return how many keys the last query may see, itself included."""
    end = call.offset + call.q.shape[2]
    return int(min(end, call.window if call.window is not None else math.inf))
