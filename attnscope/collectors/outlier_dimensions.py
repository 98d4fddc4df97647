"""Mean size of every residual-stream dimension: residual sinks stand out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from torch import Tensor

from ..core import statistics
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._base import Collector, Fold, ResidualSeen, Seen, State, ratio


@dataclass(frozen=True)
class OutlierDimensions(Collector):
    """Mean |x_d| after each block over all tokens but the first, and the largest |x_d| over all tokens (2601.22966)."""

    name: ClassVar[str] = "outlier_dimensions"
    sees: ClassVar[Literal["attention", "residual"]] = "residual"
    sites: ClassVar[tuple[str, ...]] = ("block_output",)
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("residual_mean_abs", ("block", "dimension"), "1", "mean |x| after the block", "2601.22966"),
        Variable("residual_max_abs", ("prompt", "block"), "1", "largest |x| after the block, any token", "2402.17762"),
    )

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros: `[blocks, M]`, `[blocks, 1]`, `[n_prompts, blocks]` twice."""
        return {
            "sum": np.zeros((info.n_layers, info.d_model)),
            "tokens": np.zeros((info.n_layers, 1)),
            "max": np.zeros((n_prompts, info.n_layers)),
            "prompts": np.zeros((n_prompts, info.n_layers)),
        }

    def fold(self, state: State, seen: Seen) -> Fold:
        """Add one block's output."""
        assert isinstance(seen, ResidualSeen)
        where, block, reduced = list(seen.batch.prompts), seen.block, _reduced(seen)
        del seen
        largest, sums, tokens = yield reduced
        state["max"][where, block] += largest
        state["prompts"][where, block] += 1
        state["sum"][block] += sums
        state["tokens"][block] += tokens

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return means and maxima."""
        mean, largest = self.variables
        return statistics.dataset(
            info,
            [
                (mean, ratio(state["sum"], state["tokens"])),
                (largest, ratio(state["max"], state["prompts"])),
            ],
        )


def _reduced(seen: ResidualSeen) -> tuple[Tensor, ...]:
    """Return the largest |x| of each prompt, and the sums of |x| over tokens and their number."""
    found = seen.statistics
    most = found.max_abs.where(seen.batch.valid.to(seen.stream.device), 0.0).amax(1)
    return most, found.dimension_sum_abs.sum(0), found.tokens.sum()
