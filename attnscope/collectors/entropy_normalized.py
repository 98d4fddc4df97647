"""Entropy of attention rows as a share of the largest possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Want

from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, HeadScore, mean_over_queries


@dataclass(frozen=True)
class EntropyNormalized(HeadScore):
    """Mean of entropy / log(visible keys) over queries that see at least two keys, range 0..1."""

    name: ClassVar[str] = "entropy_normalized"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("entropy_normalized", ("prompt", "layer", "head"), "1", "entropy over the largest possible"),
    )

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for row entropies."""
        return Want(entropy=True)

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Divide each row's entropy by the log of its outcomes (a sink logit is one more)."""
        entropy = seen.result.entropy
        assert entropy is not None
        outcomes = visible_keys(seen.call) + (0 if seen.call.sink_logits is None else 1)
        share = entropy / outcomes.clamp_min(2).to(entropy.dtype).log()[:, None]
        return mean_over_queries(share, outcomes >= 2)


def visible_keys(call: AttentionCall) -> Tensor:
    """Return how many keys each query sees, `[B, Tq]`, knockouts not counted."""
    b, _, tq, _ = call.q.shape
    tk = call.k.shape[2]
    valid = call.key_valid if call.key_valid is not None else call.q.new_ones(b, tk, dtype=torch.bool)
    before = torch.nn.functional.pad(valid.long().cumsum(1), (1, 0))
    position = torch.arange(tq, device=call.q.device) + call.offset
    window = tk if call.window is None else call.window
    first = (position - window + 1).clamp(0, tk)
    last = (position + 1 if call.causal else position + window).clamp(0, tk)
    return before[:, last] - before[:, first]
