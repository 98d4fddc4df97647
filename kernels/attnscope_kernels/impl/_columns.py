"""Masses of groups of keys: the weights times a matrix with one column a group (mass_in and the pooled map)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..contract import AttentionCall, Want
from ._plan import Block, Part
from ._shapes import block_of, group_count, one_hot, statistics_dtype


class KeyColumns:
    """Accumulates `mass_in` `[B, H, Tq, n]` by name and the pooled map from one matrix product a block.

    Attributes:
        mass_in: name → masses; rows are as they come, also of queries that do not count.
    """

    def __init__(self, call: AttentionCall, want: Want) -> None:
        b, h, self.tq, _ = call.q.shape
        tk, device, self.dtype = call.k.shape[2], call.q.device, statistics_dtype(call)
        columns = [one_hot(groups, group_count(groups), self.dtype) for groups in want.mass_in.values()]
        self.mass_in = {
            name: torch.empty(b, h, self.tq, matrix.shape[-1], dtype=self.dtype, device=device)
            for name, matrix in zip(want.mass_in, columns, strict=True)
        }
        self.map_rows = 0
        if want.pooled_map is not None:
            self.map_rows, map_columns = want.pooled_map
            self.row_block = block_of(self.tq, self.map_rows, device)
            self.mass = torch.zeros(b, h, *want.pooled_map, dtype=self.dtype, device=device)
            self.queries = torch.zeros(b, h, self.map_rows, dtype=self.dtype, device=device)
            columns.append(one_hot(block_of(tk, map_columns, device), map_columns, self.dtype).expand(b, -1, -1))
        self.columns = torch.cat(columns, dim=-1)

    def fold(self, part: Part, block: Block, weights: Tensor, counts: Tensor) -> None:
        """Fold weights `[b, h, queries, keys]`; `counts` `[b, h, queries]` is 1 where a query counts, else 0."""
        b, h, rows, n = weights.shape
        columns = self.columns[part.batch, block.low : block.high]
        masses = torch.bmm(weights.view(b, h * rows, n), columns).view(b, h, rows, -1)
        first = 0
        for mass in self.mass_in.values():
            last = first + mass.shape[-1]
            mass[part.batch, part.heads, block.queries] = masses[..., first:last]
            first = last
        if self.map_rows:
            low, high = self._map_row(block.queries.start), self._map_row(block.queries.stop - 1) + 1
            rows_of = one_hot(self.row_block[block.queries] - low, high - low, self.dtype)  # [queries, map rows]
            chosen = (rows_of * counts.unsqueeze(-1)).transpose(-1, -2)
            self.mass[part.batch, part.heads, low:high] += chosen @ masses[..., first:]
            self.queries[part.batch, part.heads, low:high] += chosen.sum(-1)

    def pooled_map(self) -> Tensor:
        """Return the mean mass `[B, H, rows, columns]`; NaN in rows without a query that counts."""
        queries = self.queries.unsqueeze(-1)
        return self.mass / torch.where(queries > 0, queries, math.nan)

    def _map_row(self, query: int) -> int:
        return map_row(query, self.map_rows, self.tq)


class BlockMaxima:
    """Accumulates the largest weight of every block of a map `[B, H, rows, columns]`."""

    def __init__(self, call: AttentionCall, shape: tuple[int, int]) -> None:
        b, h, self.tq, _ = call.q.shape
        self.rows, columns = shape
        device = call.q.device
        self.of_row = block_of(self.tq, self.rows, device)
        self.of_column = block_of(call.k.shape[2], columns, device)
        self.largest = torch.zeros(b, h, self.rows, columns, dtype=statistics_dtype(call), device=device)
        self.some = torch.zeros(b, h, self.rows, dtype=torch.bool, device=device)

    def fold(self, part: Part, block: Block, weights: Tensor, counts: Tensor) -> None:
        """Fold weights `[b, h, queries, keys]`; `counts` `[b, h, queries]` is 1 where a query counts, else 0."""
        b, h, rows, _ = weights.shape
        low, high = (map_row(query, self.rows, self.tq) for query in (block.queries.start, block.queries.stop - 1))
        of_column = self.of_column[block.low : block.high].expand(weights.shape)
        across = weights.new_zeros(b, h, rows, self.largest.shape[-1])
        across.scatter_reduce_(-1, of_column, weights * counts.unsqueeze(-1), "amax")
        place = (part.batch, part.heads, slice(low, high + 1))
        of_row = self.of_row[block.queries] - low
        folded = self.largest[place].scatter_reduce(-2, of_row[:, None].expand(across.shape), across, "amax")
        self.largest[place] = folded
        counted = torch.zeros_like(self.some[place], dtype=weights.dtype)
        counted.scatter_reduce_(-1, of_row.expand(counts.shape), counts, "amax")
        self.some[place] |= counted > 0

    def result(self) -> Tensor:
        """Return the maxima; NaN in rows without a query that counts."""
        return self.largest.masked_fill(~self.some.unsqueeze(-1), math.nan)


def map_row(query: int, rows: int, tq: int) -> int:
    """Return the row block of a query: block r covers r·tq//rows .. (r+1)·tq//rows."""
    return ((query + 1) * rows - 1) // tq
