"""Keys that matter on repeated random tokens: the earlier copies of each query's token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.batch import Batch
from ._base import AttentionSeen, HeadScore, mean_over_queries


def earlier_copies(batch: Batch, asked_by: str, copies: int | None, shift: int) -> Tensor:
    """Return key indices `[B, T, R]` of earlier copies of each query's token, plus `shift`; -1 where there is none.

    Copy r of query i stands at i − r·S, where S is the prompt's `period`. The first token of the prompt (BOS) is in
    no copy.

    Args:
        copies: R, nearest first; None takes as many as any prompt holds.
        shift: 0 for the copies themselves, 1 for the tokens after them.

    Raises:
        TaskError: the prompt set has no `period` column.
    """
    period = torch.tensor(batch.column("period", asked_by), device=batch.input_ids.device)[:, None, None]
    offset = torch.tensor(batch.column("prefix", asked_by), device=batch.input_ids.device)
    first = (batch.starts + offset)[:, None, None]
    t = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)[None, :, None]
    most = copies or max(1, int((batch.lengths // period[:, 0, 0]).max()))
    back = torch.arange(1, most + 1, device=batch.input_ids.device) * period
    return (t - back + shift).where((t - back >= first) & batch.valid[:, :, None], -1)


@dataclass(frozen=True)
class RepeatScore(HeadScore):
    """Base of scores on repeated random tokens: mean over queries that have an earlier copy."""

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Average over queries whose token stood before."""
        return mean_over_queries(seen.result.mass_at[self.name])
