"""Sink rate: the share of heads for which the first token is a sink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from attnscope_kernels import Want

from ..core import statistics
from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import AttentionSeen, Collector, Fold, Seen, State, mean_over_queries, ratio


@dataclass(frozen=True)
class SinkRate(Collector):
    """Percent of prompts in which a head's mean attention to the first token is above ε (2410.10781).

    Averaged over layers and heads this is the paper's sink rate, Sink₁^ε. By causality the first n rows of a longer
    prompt are the rows of its prefix, so one pass gives the figure at several lengths; prompts shorter than a length
    do not count there.

    Attributes:
        epsilon: threshold, strict `>`; the paper uses 0.3.
        lengths: prefix lengths in tokens; the paper uses 64.

    Example:
        >>> SinkRate(lengths=(64, 512)).epsilon
        0.3
    """

    name: ClassVar[str] = "sink_rate"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("sink_rate", ("length", "layer", "head"), "percent", "prompts where the head sinks", "2410.10781"),
        Variable("sink_rate_prompts", ("length",), "prompt", "prompts at least this long", "2410.10781"),
    )
    epsilon: float = 0.3
    lengths: tuple[int, ...] = (64,)

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Ask for the mass at the first token."""
        return Want(mass_at={"first_token": batch.first_token})

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros: hits and prompts, `[lengths, L, H]`."""
        shape = (len(self.lengths), len(info.attention_layers), info.n_heads)
        return {"hits": np.zeros(shape), "prompts": np.zeros(shape)}

    def fold(self, state: State, seen: Seen) -> Fold:
        """Count the prompts whose prefix mean is above ε."""
        assert isinstance(seen, AttentionSeen)
        row, reduced = seen.row, self._reduced(seen)
        del seen
        hit, prompt = yield reduced
        state["hits"][:, row] += hit
        state["prompts"][:, row] += prompt[:, None]

    def _reduced(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        mass, batch = seen.result.mass_at["first_token"], seen.batch
        since = torch.arange(mass.shape[2], device=mass.device) - batch.starts[:, None]
        hits, prompts = [], []
        for length in self.lengths:
            total, count = mean_over_queries(mass, (since >= 0) & (since < length))
            enough = batch.lengths >= length
            hits.append(((total / count > self.epsilon) & enough[:, None]).sum(0))
            prompts.append(enough.sum())
        return torch.stack(hits), torch.stack(prompts)

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return percentages, NaN at lengths that no prompt reaches."""
        return statistics.dataset(
            info,
            [
                (self.variables[0], 100 * ratio(state["hits"], state["prompts"])),
                (self.variables[1], state["prompts"][:, 0, 0]),
            ],
            coords={"length": list(self.lengths)},
            attrs={"sink_rate_epsilon": self.epsilon, "sink_rate_comparison": ">"},
        )
