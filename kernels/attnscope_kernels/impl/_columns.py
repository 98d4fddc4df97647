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
        return ((query + 1) * self.map_rows - 1) // self.tq
