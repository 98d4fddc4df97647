"""What a frequency report is built from, and its statistics by head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..analyses import frequency as chunks
from ..core import statistics
from ..core.frequency_report import Pairing
from ..core.names import Variable
from ..core.report import Missing

if TYPE_CHECKING:
    from ..core.model_info import ModelInfo

_HEAD = ("layer", "head")
AGREEMENT = Variable("contextual_agreement", (*_HEAD, "chunk"), "1", "contextual agreement, mean", "2602.03152")
DOMINANT_CHUNK = Variable("dominant_chunk", (*_HEAD, "rank"), "1", "chunks by agreement; -1 not measured", "2602.03152")
BY_BUDGET = Variable("agreement_by_budget", ("budget", *_HEAD, "chunk"), "1", "contextual agreement", "2602.03152")
BY_TASK = Variable("task_agreement", ("task", *_HEAD, "chunk"), "1", "contextual agreement on a task", "2602.03152")
KV_HEAD = Variable(
    "kv_agreement", ("layer", "kv_head", "chunk"), "1", "contextual agreement, mean of a KV head's group"
)
COMPOUND = Variable("compound_agreement", ("choice", "budget", *_HEAD), "1", "top keys that are picked", "2602.03152")
LOW = Variable("low_frequency_share", _HEAD, "1", "agreement above chance in chunks longer than the prompt")
WAVELENGTH = Variable("wavelength", ("layer", "chunk"), "token", "a full turn of the chunk; inf: never turns")
FIRST = Variable("first_dimension", ("chunk",), "1", "first dimension of the pair")
SECOND = Variable("second_dimension", ("chunk",), "1", "second dimension of the pair")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a frequency report is built from.

    Attributes:
        pairing: how dimensions pair.
        rotary_dims: dimensions that RoPE turns.
        order: `[D]` a head's dimensions; chunk c is entries c and c + D / 2.
        wavelengths: `[L, C]` tokens; infinite where a chunk never turns, NaN in layers without RoPE or where unknown.
        rotary_layers: layers with RoPE.
        tasks: task → dataset of `engine.frequency.agreement`; the first is the one that chunks are ranked on.
        compound: dataset of `engine.compound_agreement`, or why there is none.
        budget: at which chunks are ranked.
        sizes: numbers of dominant chunks.
        context: tokens of the longest prompt.
        n_tokens: of all prompts.
    """

    pairing: Pairing
    rotary_dims: int
    order: tuple[int, ...]
    wavelengths: np.ndarray
    rotary_layers: tuple[int, ...]
    tasks: Mapping[str, xr.Dataset]
    compound: xr.Dataset | Missing
    budget: int
    sizes: tuple[int, ...]
    context: int
    n_tokens: int

    @property
    def first(self) -> xr.Dataset:
        """The dataset that chunks are ranked on."""
        return next(iter(self.tasks.values()))

    @property
    def overlap_size(self) -> int:
        """Chunks of the sets that tasks are compared by: a quarter, as in the paper, or the nearest size."""
        quarter = self.wavelengths.shape[1] / 4
        return min(self.sizes, key=lambda size: abs(size - quarter))


def mean_agreement(data: xr.Dataset, budget: int, prompts: slice = slice(None)) -> np.ndarray:
    """Return `[L, H, C]` agreement at one budget, mean over prompts; NaN where no prompt was measured."""
    values = data.agreement.sel(budget=budget).values[prompts]
    return nanmean(values)


def frequency_statistics(info: ModelInfo, found: Measured) -> xr.Dataset:
    """Return the statistics of a run, by head: `dominant_chunk`, `contextual_agreement`, `compound_agreement`, ….

    Their attrs name the pairing, the dimensions that turn, the queries a prompt and the budget.
    """
    data, budgets = found.first, [int(budget) for budget in found.first.budget.values]
    mean = mean_agreement(data, found.budget)
    half = len(found.order) // 2
    values: list[tuple[Variable, Any]] = [
        (AGREEMENT, mean),
        (DOMINANT_CHUNK, chunks.dominant_chunks(mean)),
        (BY_BUDGET, np.stack([mean_agreement(data, budget) for budget in budgets])),
        (BY_TASK, np.stack([mean_agreement(one, found.budget) for one in found.tasks.values()])),
        (KV_HEAD, chunks.kv_head_agreement(mean, info.group_size)),
        (LOW, low_frequency(found, mean)),
        (WAVELENGTH, found.wavelengths),
        (FIRST, np.array(found.order[:half])),
        (SECOND, np.array(found.order[half:])),
    ]
    coords: dict[str, Any] = {"budget": budgets, "task": list(found.tasks)}
    if not isinstance(found.compound, Missing):
        values.append((COMPOUND, nanmean(found.compound.compound_agreement.values)))
        coords["choice"] = [str(name) for name in found.compound.choice.values]
    attrs = {
        "pairing": found.pairing,
        "rotary_dims": found.rotary_dims,
        "queries": int(data.attrs["queries"]),
        "budget": found.budget,
        "fingerprint": data.attrs["fingerprint"],
    }
    return statistics.dataset(info, values, coords, attrs)


def low_frequency(found: Measured, mean: np.ndarray) -> np.ndarray:
    """Return `[L, H]` the share of agreement above chance in slow chunks, see `analyses.frequency`."""
    chance = nanmean(found.first.chance_agreement.sel(budget=found.budget).values)
    return chunks.low_frequency_share(mean, chance, found.wavelengths, found.context)


def nanmean(values: np.ndarray) -> Any:
    """Return the mean over the first axis without NaN; NaN where nothing is left."""
    measured = ~np.isnan(values)
    count = measured.sum(0)
    total = np.where(measured, values, 0.0).sum(0)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)[()]
