"""Retrieval: does the head look at the needle token that is about to be copied?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import TopKeys, Want

from ..core.batch import Batch
from ..core.errors import TaskError
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore


@dataclass(frozen=True)
class Retrieval(HeadScore):
    """Share of answer tokens at whose prediction the head's largest weight is on the needle token to be copied.

    The retrieval score of 2404.15574 with the answer given (teacher forcing) instead of generated, so that one pass
    serves all heads; range 0..1. Prompts need `query_positions` (where each answer token is predicted) and
    `source_positions` (where it stands in the needle), both counted in real tokens.
    """

    name: ClassVar[str] = "retrieval"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("retrieval", ("prompt", "layer", "head"), "1", "answer tokens retrieved", "2404.15574"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the top key of every query that predicts an answer token."""
        return Want(top_keys={self.name: TopKeys(self._table(batch, "query_positions"), 1)})

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Count the queries whose top key is the source."""
        source = self._table(seen.batch, "source_positions")
        keys = seen.result.top_keys[self.name][1][..., 0]
        asked = (source >= 0)[:, None]
        return ((keys == source[:, None]) & asked).sum(-1), asked.sum(-1)

    def _table(self, batch: Batch, column: str) -> Tensor:
        rows = batch.column(column, self.name)
        if not all(rows):
            raise TaskError(f"column {column!r}", found="a prompt without answer tokens", expected="at least one")
        table = torch.full((len(rows), max(map(len, rows))), -1, dtype=torch.long)
        for i, row in enumerate(rows):
            table[i, : len(row)] = torch.tensor(row)
        table = table.to(batch.input_ids.device)
        return (table + batch.starts[:, None]).where(table >= 0, -1)
