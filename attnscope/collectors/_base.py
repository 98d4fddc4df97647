"""The one shape of a collector: parameters only, and four functions init → fold → merge → finalize.

State is a dict of float64 arrays that only ever grow by addition, so that any split of the prompts over batches,
processes or machines gives the same answer.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from attnscope_kernels import Want

from ..core import statistics
from ..core.batch import Batch
from ..core.model_info import ModelInfo
from ..core.names import Variable
from ._seen import AttentionSeen, ResidualSeen, Seen

__all__ = [
    "AttentionSeen",
    "Collector",
    "Fold",
    "HeadScore",
    "ResidualSeen",
    "Seen",
    "State",
    "mean_over_queries",
    "ratio",
]

State = dict[str, np.ndarray]
Fold = Generator[tuple[Tensor, ...], list[np.ndarray], None]
"""A fold under way: it yields tensors once and is sent them as arrays."""


@dataclass(frozen=True)
class Collector:
    """Base of every collector; a subclass's fields are its parameters.

    Attributes:
        name: the file's name.
        sees: whether `fold` gets AttentionSeen or ResidualSeen.
        sites: where a collector that sees the residual stream reads it; see `models._base.Site`.
        variables: what `finalize` returns.
    """

    name: ClassVar[str]
    sees: ClassVar[Literal["attention", "residual"]] = "attention"
    sites: ClassVar[tuple[str, ...]] = ("block_input", "block_output")
    variables: ClassVar[tuple[Variable, ...]]

    def want(self, batch: Batch, info: ModelInfo) -> Want:
        """Return the reductions that `fold` needs of this batch and model."""
        return Want()

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return the empty state: zeros."""
        raise NotImplementedError

    def fold(self, state: State, seen: Seen) -> Fold:
        """Add one layer of one batch to the state, in place.

        Reduce on the tensors' device, `yield` what is left, and get it back as float64 arrays: `a, b = yield x, y`.
        What is yielded moves to the host while the device goes on, and the rest of the fold runs later; so `del` what
        was seen, and let no tensor live past the yield.
        """
        raise NotImplementedError

    def merge(self, a: State, b: State) -> State:
        """Return the state of two disjoint sets of batches of one prompt set."""
        return {key: a[key] + b[key] for key in a}

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Turn the state into a dataset with units and sources."""
        raise NotImplementedError


@dataclass(frozen=True)
class HeadScore(Collector):
    """Base of collectors that give one number a prompt and query head: a mean over some of the prompt's queries."""

    def init(self, info: ModelInfo, n_prompts: int) -> State:
        """Return zeros `[n_prompts, L, H]`."""
        shape = (n_prompts, len(info.attention_layers), info.n_heads)
        return {"sum": np.zeros(shape), "count": np.zeros(shape)}

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Return sums over queries `[B, H]` and how many queries they hold `[B, H]` (or `[B, 1]`)."""
        raise NotImplementedError

    def fold(self, state: State, seen: Seen) -> Fold:
        """Add the sums of one layer of one batch."""
        assert isinstance(seen, AttentionSeen)
        total, count = self.measure(seen)
        where, row, reduced = list(seen.batch.prompts), seen.row, (total, count.expand_as(total))
        del seen, total, count
        sums, counts = yield reduced
        state["sum"][where, row] += sums
        state["count"][where, row] += counts

    def finalize(self, state: State, info: ModelInfo) -> xr.Dataset:
        """Return the mean over queries, NaN where a prompt had none."""
        return statistics.dataset(info, [(self.variables[0], ratio(state["sum"], state["count"]))])


def ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return total / count, NaN where count is 0."""
    return np.divide(total, count, out=np.full(np.broadcast_shapes(total.shape, count.shape), np.nan), where=count > 0)


def mean_over_queries(per_query: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return sums and counts over the queries that were measured.

    Args:
        per_query: `[B, H, T]`, NaN where missing.
        chosen: `[B, T]` bool; None takes all.

    Returns:
        Two `[B, H]` tensors, float64 and int64.
    """
    kept = ~per_query.isnan()
    if chosen is not None:
        kept &= chosen[:, None]
    return per_query.where(kept, 0.0).sum(-1, dtype=torch.float64), kept.sum(-1)
