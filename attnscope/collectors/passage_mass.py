"""Attention from a question to the passage that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import Want

from ..core.batch import Batch
from ..core.errors import TaskError
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore, mean_over_queries


@dataclass(frozen=True)
class PassageMass(HeadScore):
    """Attention on the passage that holds the answer, mean over the question's tokens, range 0..1 (2506.09944).

    Prompts need `gold_span` (first and last + 1 position of the passage) and `question_positions`.
    """

    name: ClassVar[str] = "passage_mass"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("passage_mass", ("prompt", "layer", "head"), "1", "attention on the gold passage", "2506.09944"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass in the gold passage."""
        group = torch.full_like(batch.input_ids, -1)
        for row, (low, high) in enumerate(batch.column("gold_span", self.name)):
            start = int(batch.starts[row])
            if not 0 <= low < high <= int(batch.lengths[row]):
                raise TaskError("column 'gold_span'", found=(low, high), expected="a span within the prompt")
            group[row, start + low : start + high] = 0
        return Want(mass_in={self.name: group})

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Average over the question's tokens."""
        rows = seen.batch.column("question_positions", self.name)
        table = torch.full((len(rows), max(map(len, rows))), -1, dtype=torch.long)
        for row, positions in enumerate(rows):
            table[row, : len(positions)] = torch.tensor(positions)
        table = table.to(seen.batch.input_ids.device)
        mass = seen.result.mass_in[self.name][..., 0]
        asked = (table + seen.batch.starts[:, None]).clamp(min=0).to(mass.device)
        own = mass.gather(2, asked[:, None].expand(-1, mass.shape[1], -1))
        return mean_over_queries(own, (table >= 0).to(mass.device))
