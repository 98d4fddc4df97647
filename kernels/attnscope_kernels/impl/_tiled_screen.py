"""What a screen asks of `tiled`: chosen rows, and chosen columns, a few queries at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..contract import AttentionCall, Result, Want
from ._logits import HIDDEN, Operands
from ._plan import ELEMENTS
from ._sample import Level
from ._shapes import statistics_dtype
from ._top_keys import logits_of


class Streaming:
    """See `_screen.Backend`."""

    name = "tiled"

    def __init__(self, attend: Callable[[AttentionCall, Want], Result]) -> None:
        self.whole = attend

    def rows(self, call: AttentionCall, lse: Tensor, queries: Tensor, want: Want) -> dict[str, Tensor]:
        """Return the row statistics of `queries` `[S]`."""
        names = [name for name in ("entropy", "max_prob", "mean_distance") if getattr(want, name)]
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        j = torch.arange(call.k.shape[2], device=lse.device)
        for chosen, own, shares, surprise in _shares(call, lse, queries):
            for name in names:
                statistic = _row(name, call, chosen, own, shares, surprise, j)
                found[name].append(statistic.masked_fill_(own.isnan(), math.nan))
        return {name: torch.cat(parts, -1) for name, parts in found.items()}

    def received(self, call: AttentionCall, lse: Tensor, level: Level) -> Tensor:
        """Sum the rows of a level's queries with its weights."""
        total = lse.new_zeros(*call.q.shape[:2], level.keys.stop - level.keys.start)
        first = 0
        for chosen, _, shares, _ in _shares(call, lse, level.queries):
            weights = level.weights[first : first + len(chosen)].to(shares)
            total += (weights @ shares[..., level.keys]).view_as(total)
            first += len(chosen)
        return total

    def columns(self, call: AttentionCall, lse: Tensor, keys: Tensor) -> Tensor:
        """Sum the columns of `keys` `[B, C]` over the queries that count."""
        operands = Operands(call, statistics_dtype(call))
        b, h, tq, _ = call.q.shape
        total = lse.new_zeros(b, h, keys.shape[1])
        at = keys[:, None, None].expand(b, h, 1, -1)
        for chosen in _cut(torch.arange(tq, device=lse.device), b * h * call.k.shape[2]):
            logits = logits_of(operands, chosen.expand(b, -1))
            own = lse[:, :, chosen]
            picked = logits.gather(-1, at.expand(-1, -1, len(chosen), -1)) - own.nan_to_num()[..., None]
            total += (picked.exp() * ~own.isnan()[..., None]).sum(2)
        return total


def _shares(call: AttentionCall, lse: Tensor, queries: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield (queries, their lse, weights, −ln of the weights), a few rows at a time."""
    operands = Operands(call, statistics_dtype(call))
    b, h = call.q.shape[:2]
    for chosen in _cut(queries, b * h * call.k.shape[2]):
        logits = logits_of(operands, chosen.expand(b, -1))
        own = lse[:, :, chosen]
        surprise = (own.nan_to_num()[..., None] - logits).masked_fill_(logits <= HIDDEN / 2, -HIDDEN)
        yield chosen, own, (-surprise).exp().mul_(~own.isnan()[..., None]), surprise


def _cut(values: Tensor, elements: int) -> tuple[Tensor, ...]:
    size = max(1, ELEMENTS.get(values.device.type, 1 << 20) // elements)
    return values.split(size)


def _row(
    name: str, call: AttentionCall, chosen: Tensor, lse: Tensor, shares: Tensor, surprise: Tensor, j: Tensor
) -> Tensor:
    if name == "max_prob":
        return shares.amax(-1)
    if name == "mean_distance":
        return (shares * (call.offset + chosen[:, None] - j).abs()).sum(-1)
    entropy = (shares * surprise).sum(-1)
    if call.sink_logits is not None:
        sink = lse - call.sink_logits.to(lse)[:, None]
        entropy += sink * (-sink).exp()
    return entropy.clamp_(min=0)
