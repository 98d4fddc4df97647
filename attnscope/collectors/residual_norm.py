"""Norms of the residual stream, first token against the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..core import statistics
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import Collector, Fold, ResidualSeen, Seen, State, ratio

SITES = ("block_input", "block_output")


@dataclass(frozen=True)
class ResidualNorm(Collector):
    """ℓ₂ norm of the residual stream before and after each block: the first token's, and the mean of the others'."""

    name: ClassVar[str] = "residual_norm"
    sees: ClassVar[Literal["attention", "residual"]] = "residual"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("residual_norm_first", ("prompt", "site", "block"), "1", "residual norm of the first token"),
        Variable("residual_norm_others", ("prompt", "site", "block"), "1", "mean residual norm of the other tokens"),
    )

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros `[n_prompts, sites, blocks]`."""
        shape = (n_prompts, len(SITES), info.n_layers)
        return {key: np.zeros(shape) for key in ("first", "prompts", "others", "tokens")}

    def fold(self, state: State, seen: Seen) -> Fold:
        """Add one site of one block."""
        assert isinstance(seen, ResidualSeen)
        where, reduced = (list(seen.batch.prompts), SITES.index(seen.site), seen.block), _reduced(seen)
        del seen
        firsts, others, tokens = yield reduced
        state["first"][where] += firsts
        state["prompts"][where] += 1
        state["others"][where] += others
        state["tokens"][where] += tokens

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return means."""
        first, others = self.variables
        return statistics.dataset(
            info,
            [(first, ratio(state["first"], state["prompts"])), (others, ratio(state["others"], state["tokens"]))],
            coords={"site": list(SITES)},
        )


def _reduced(seen: ResidualSeen) -> tuple[Tensor, ...]:
    """Return each prompt's first norm, the sum of the others, and their number."""
    norm, device = seen.statistics.norm, seen.stream.device
    first = norm.gather(1, seen.batch.starts.to(device)[:, None])[:, 0].double()
    total = norm.where(seen.batch.valid.to(device), 0.0).sum(1, dtype=torch.float64)
    return first, total - first, seen.batch.lengths.to(device) - 1
