"""Every reduction of Want, folded in one block of attention weights at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..contract import AttentionCall, Result, Want
from ._columns import BlockMaxima, KeyColumns
from ._diagonals import DistanceSums
from ._plan import Block, Part
from ._shapes import statistics_dtype, value_norm


class Sums:
    """Accumulators for every reduction that was asked for: `fold` once a block, then `result`.

    Attributes:
        counts: `[B, H, Tq]`: 1 where the query is valid and sees a key, else 0.
    """

    def __init__(self, call: AttentionCall, want: Want) -> None:
        b, h, tq, _ = call.q.shape
        tk, dtype, device = call.k.shape[2], statistics_dtype(call), call.q.device
        self.call, self.want, self.dtype = call, want, dtype

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.counts = empty(b, h, tq)
        names = ("lse", "entropy", "max_prob", "mean_distance")
        self.rows = {name: empty(b, h, tq) for name in names if getattr(want, name)}
        self.at = {name: empty(b, h, tq) for name in want.mass_at}
        self.received = torch.zeros(b, h, tk, dtype=dtype, device=device) if want.received else None
        self.received_max = torch.zeros(b, h, tk, dtype=dtype, device=device) if want.received_max else None
        self.columns = KeyColumns(call, want) if want.mass_in or want.pooled_map is not None else None
        self.maxima = BlockMaxima(call, want.pooled_max) if want.pooled_max is not None else None
        self.distances = DistanceSums(call) if want.mass_by_distance is not None else None

    def fold(self, part: Part, block: Block, logits: Tensor, weights: Tensor, lse: Tensor, counts: Tensor) -> None:
        """Fold one part and block.

        Args:
            part: which batch rows and heads.
            block: which queries, and which keys.
            logits: `[b, h, queries, keys]`, finite; overwritten.
            weights: likewise, A itself; rows that see nothing are 0.
            lse: `[b, h, queries]`, of the keys and the sink logit.
            counts: `[b, h, queries]`: 1 where the query is valid and sees a key, else 0.
        """
        want = self.want
        place = (part.batch, part.heads, block.queries)
        keys = (part.batch, part.heads, slice(block.low, block.high))
        self.counts[place] = counts
        if want.lse:
            self.rows["lse"][place] = lse
        if want.max_prob:
            self.rows["max_prob"][place] = weights.amax(-1)
        if want.entropy:
            self.rows["entropy"][place] = self._entropy(part, logits, weights, lse)
        for name, index in want.mass_at.items():
            self.at[name][place] = _mass_at(weights, index[part.batch, block.queries], block)
        if self.columns is not None:
            self.columns.fold(part, block, weights, counts)
        if self.maxima is not None:
            self.maxima.fold(part, block, weights, counts)
        if self.distances is not None:
            self.distances.fold(part, block, weights, counts)
        if self.received is not None:
            self.received[keys] += (counts.unsqueeze(-2) @ weights).squeeze(-2)
        if want.mean_distance:
            torch.mul(weights, self._key_distances(block), out=logits)
            self.rows["mean_distance"][place] = logits.sum(-1)
        if self.received_max is not None:
            torch.mul(weights, counts.unsqueeze(-1), out=logits)
            self.received_max[keys] = torch.maximum(self.received_max[keys], logits.amax(-2))

    def result(self, output: Tensor | None, top_keys: dict[str, tuple[Tensor, Tensor]]) -> Result:
        """Return what was asked for; row statistics of queries that do not count become NaN."""
        want, dropped = self.want, self.counts == 0
        for statistic in [*self.rows.values(), *self.at.values()]:
            statistic.masked_fill_(dropped, math.nan)
        for name, index in want.mass_at.items():
            absent = index < 0 if index.dim() == 2 else (index < 0).all(-1)
            self.at[name].masked_fill_(absent.unsqueeze(1), math.nan)
        mass_in = self.columns.mass_in if self.columns is not None else {}
        return Result(
            implementation="tiled",
            output=output,
            lse=self.rows.get("lse"),
            entropy=self.rows.get("entropy"),
            max_prob=self.rows.get("max_prob"),
            mean_distance=self.rows.get("mean_distance"),
            received=self.received,
            received_max=self.received_max,
            value_norm=value_norm(self.call).detach() if want.value_norm else None,
            mass_at=self.at,
            mass_in={name: mass.masked_fill_(dropped.unsqueeze(-1), math.nan) for name, mass in mass_in.items()},
            top_keys=top_keys,
            mass_by_distance=self.distances.bins(want.mass_by_distance or ()) if self.distances is not None else None,
            pooled_map=self.columns.pooled_map() if self.columns is not None and want.pooled_map is not None else None,
            pooled_max=self.maxima.result() if self.maxima is not None else None,
        )

    def _entropy(self, part: Part, logits: Tensor, weights: Tensor, lse: Tensor) -> Tensor:
        """−Σ p·ln p over the keys and the sink logit, ln p being logit − lse: no logarithm of the block."""
        entropy = -logits.sub_(lse.unsqueeze(-1)).mul_(weights).sum(-1)
        if self.call.sink_logits is not None:
            surprise = lse - self.call.sink_logits.detach()[part.heads, None].to(self.dtype)
            entropy += surprise * (-surprise).exp()
        return entropy.clamp_(min=0)

    def _key_distances(self, block: Block) -> Tensor:
        """|position − j| of a block `[queries, keys]` in tokens."""
        rows = block.queries.stop - block.queries.start
        i = torch.arange(block.start, block.start + rows, device=self.call.q.device, dtype=self.dtype)
        j = torch.arange(block.low, block.high, device=self.call.q.device, dtype=self.dtype)
        return (i.unsqueeze(-1) - j).abs_()


def _mass_at(weights: Tensor, index: Tensor, block: Block) -> Tensor:
    """Return Σ_r A[i, index[i, r]] `[b, h, queries]`; indices outside the block's visible keys add 0."""
    index = (index.unsqueeze(-1) if index.dim() == 2 else index).long() - block.low
    seen = (index >= 0) & (index < weights.shape[-1]) & (index + block.low >= 0)
    chosen = index.clamp(0, weights.shape[-1] - 1).unsqueeze(1).expand(-1, weights.shape[1], -1, -1)
    return (weights.gather(-1, chosen) * seen.unsqueeze(1)).sum(-1)
