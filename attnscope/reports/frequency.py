"""Build a FrequencyReport from agreements that were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..analyses import frequency as chunks
from ..core.frequency_report import (
    DOMINANT,
    Choice,
    FrequencyReport,
    HeadChunks,
    Margin,
    PublishedChoice,
    TaskOverlap,
    Wavelengths,
)
from ..core.report import Missing, Provenance
from .frequency_statistics import Measured, low_frequency, mean_agreement, nanmean
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
RIVALS = ("recent", "stream", "snapkv")
TOO_SHORT = "no sampled query sees twice as many keys as the budget"


def frequency_report(info: ModelInfo, found: Measured, made: Provenance, notes: tuple[str, ...]) -> FrequencyReport:
    """Return the report."""
    data = found.first
    mean = mean_agreement(data, found.budget)
    low = low_frequency(found, mean)
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
        chance=_number(nanmean(data.chance_agreement.sel(budget=found.budget).values.ravel())),
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


def _wavelengths(info: ModelInfo, found: Measured) -> tuple[Wavelengths, ...]:
    groups: dict[tuple[float | None, ...], list[int]] = {}
    for row, layer in enumerate(info.attention_layers):
        if layer in found.rotary_layers:
            groups.setdefault(tuple(_number(value, 7) for value in found.wavelengths[row]), []).append(layer)
    return tuple(Wavelengths(layers=tuple(layers), tokens=tokens) for tokens, layers in groups.items())


def _by_prompt(data: xr.Dataset, method: str, budget: int) -> np.ndarray:
    """Return `[P]` agreement of one method, mean over heads; NaN for a prompt without it."""
    return nanmean(data.compound_agreement.sel(choice=method, budget=budget).values.reshape(data.sizes["prompt"], -1).T)


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
                    overlap=_number(nanmean(chunks.overlap(a, b).ravel())),
                    chance=chunks.overlap_by_chance(n, found.wavelengths.shape[1]),
                )
            )
    return tuple(rows)


def _number(value: float, digits: int = 4) -> float | None:
    return None if np.isnan(value) else float(f"{value:.{digits}g}")
