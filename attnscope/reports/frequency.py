"""Build a FrequencyReport and its statistics from agreements that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..analyses import frequency as chunks
from ..core import statistics
from ..core.frequency_report import (
    DOMINANT,
    Choice,
    FrequencyReport,
    HeadChunks,
    Margin,
    Pairing,
    PublishedChoice,
    TaskOverlap,
    Wavelengths,
)
from ..core.names import Variable
from ..core.report import Missing, Provenance
from .sinks import estimate

if TYPE_CHECKING:
    from ..core.model_info import ModelInfo

PUBLISHED = tuple(
    PublishedChoice(method=method, percent=percent)
    for method, percent in (
        ("random", 3.6),
        ("stream", 26.8),
        ("snapkv", 40.9),
        ("chunks 8", 49.4),
        ("chunks 16", 59.7),
    )
)
"""Compound agreement at 256 keys in the paper, whose heads have 64 chunks."""
PAPER_BUDGET, PAPER_CHUNKS = 256, 64
RIVALS = ("recent", "stream", "snapkv")
TOO_SHORT = "no sampled query sees twice as many keys as the budget"

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
    return _nanmean(values)


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
        (LOW, _low_frequency(found, mean)),
        (WAVELENGTH, found.wavelengths),
        (FIRST, np.array(found.order[:half])),
        (SECOND, np.array(found.order[half:])),
    ]
    coords: dict[str, Any] = {"budget": budgets, "task": list(found.tasks)}
    if not isinstance(found.compound, Missing):
        values.append((COMPOUND, _nanmean(found.compound.compound_agreement.values)))
        coords["choice"] = [str(name) for name in found.compound.choice.values]
    attrs = {
        "pairing": found.pairing,
        "rotary_dims": found.rotary_dims,
        "queries": int(data.attrs["queries"]),
        "budget": found.budget,
        "fingerprint": data.attrs["fingerprint"],
    }
    return statistics.dataset(info, values, coords, attrs)


def frequency_report(info: ModelInfo, found: Measured, made: Provenance, notes: tuple[str, ...]) -> FrequencyReport:
    """Return the report."""
    data = found.first
    mean = mean_agreement(data, found.budget)
    low = _low_frequency(found, mean)
    ranked = chunks.dominant_chunks(mean, max(found.sizes))
    heads = tuple(
        HeadChunks(
            layer=layer,
            head=head,
            agreement=tuple(_number(v) for v in mean[row, head]),
            dominant=tuple(int(c) for c in ranked[row, head] if c >= 0),
            low_frequency_share=_number(low[row, head]),
        )
        for row, layer in enumerate(info.attention_layers)
        for head in range(info.n_heads)
    )
    budgets = tuple(int(budget) for budget in data.budget.values)
    return FrequencyReport(
        model=info,
        pairing=found.pairing,
        rotary_dims=found.rotary_dims,
        n_chunks=mean.shape[2],
        rotary_layers=found.rotary_layers,
        wavelengths=_wavelengths(info, found),
        context=found.context,
        budgets=budgets,
        budget=found.budget,
        queries=int(data.attrs["queries"]),
        sizes=found.sizes,
        n_prompts=data.sizes["prompt"],
        n_held_out=0 if isinstance(found.compound, Missing) else found.compound.sizes["prompt"],
        n_tokens=found.n_tokens,
        chance=_number(_nanmean(data.chance_agreement.sel(budget=found.budget).values.ravel())),
        heads=heads,
        dominant_share=_number(chunks.dominant_share(mean, DOMINANT)),
        choices=_choices(found, budgets),
        margins=_margins(found, budgets),
        tasks=tuple(found.tasks),
        overlap_size=found.overlap_size,
        overlaps=_overlaps(found),
        published=PUBLISHED,
        provenance=made,
        notes=notes,
    )


def _low_frequency(found: Measured, mean: np.ndarray) -> np.ndarray:
    chance = _nanmean(found.first.chance_agreement.sel(budget=found.budget).values)
    return chunks.low_frequency_share(mean, chance, found.wavelengths, found.context)


def _wavelengths(info: ModelInfo, found: Measured) -> tuple[Wavelengths, ...]:
    groups: dict[tuple[float | None, ...], list[int]] = {}
    for row, layer in enumerate(info.attention_layers):
        if layer in found.rotary_layers:
            groups.setdefault(tuple(_number(value, 7) for value in found.wavelengths[row]), []).append(layer)
    return tuple(Wavelengths(layers=tuple(layers), tokens=tokens) for tokens, layers in groups.items())


def _by_prompt(data: xr.Dataset, method: str, budget: int) -> np.ndarray:
    """Return `[P]` agreement of one method, mean over heads; NaN for a prompt without it."""
    return _nanmean(
        data.compound_agreement.sel(choice=method, budget=budget).values.reshape(data.sizes["prompt"], -1).T
    )


def _choices(found: Measured, budgets: tuple[int, ...]) -> tuple[Choice, ...]:
    data = found.compound
    if isinstance(data, Missing):
        return ()
    names = [str(name) for name in data.choice.values]
    return tuple(
        Choice(
            method=name,
            chunks=int(name.split()[-1]) if name.split()[-1].isdigit() else None,
            budget=budget,
            agreement=estimate(_by_prompt(data, name, budget), TOO_SHORT),
        )
        for name in names
        for budget in budgets
    )


def _margins(found: Measured, budgets: tuple[int, ...]) -> tuple[Margin, ...]:
    data = found.compound
    if isinstance(data, Missing):
        return ()
    most = max(found.sizes)
    pairs = [(size, rival) for size in found.sizes for rival in RIVALS] + [(most, f"random chunks {most}")]
    return tuple(
        Margin(
            chunks=size,
            baseline=rival,
            budget=budget,
            difference=estimate(
                _by_prompt(data, f"chunks {size}", budget) - _by_prompt(data, rival, budget), TOO_SHORT
            ),
        )
        for size, rival in pairs
        for budget in budgets
    )


def _overlaps(found: Measured) -> tuple[TaskOverlap, ...]:
    n, budget, names = found.overlap_size, found.budget, list(found.tasks)
    whole = {name: chunks.dominant_chunks(mean_agreement(data, budget), n) for name, data in found.tasks.items()}
    rows = []
    for i, name in enumerate(names):
        for other in names[: i + 1]:
            if other == name:
                data = found.tasks[name]
                halves = (mean_agreement(data, budget, slice(start, None, 2)) for start in (0, 1))
                a, b = (chunks.dominant_chunks(half, n) for half in halves)
            else:
                a, b = whole[name], whole[other]
            rows.append(
                TaskOverlap(
                    task=name,
                    other=other,
                    overlap=_number(_nanmean(chunks.overlap(a, b).ravel())),
                    chance=chunks.overlap_by_chance(n, found.wavelengths.shape[1]),
                )
            )
    return tuple(rows)


def _nanmean(values: np.ndarray) -> Any:
    """Return the mean over the first axis without NaN; NaN where nothing is left."""
    measured = ~np.isnan(values)
    count = measured.sum(0)
    total = np.where(measured, values, 0.0).sum(0)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)[()]


def _number(value: float, digits: int = 4) -> float | None:
    return None if np.isnan(value) else float(f"{value:.{digits}g}")
