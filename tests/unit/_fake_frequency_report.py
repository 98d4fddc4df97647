"""A frequency report of a made-up model: 4 layers × 8 heads × 16 chunks, the last layer without RoPE."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import xarray as xr
from _fake_report import fake_info, fake_provenance

from attnscope.core import statistics
from attnscope.core.frequency_report import FrequencyReport
from attnscope.core.names import Variable
from attnscope.core.report import Missing
from attnscope.reports.frequency import frequency_report
from attnscope.reports.frequency_statistics import Measured, frequency_statistics

LAYERS, HEADS, CHUNKS, PROMPTS = 4, 8, 16, 6
BUDGETS, SIZES, CONTEXT = (8, 16, 32), (2, 4, 8), 512
NOTE = "A note with <script>alert('note')</script> in it."
INFO = fake_info(LAYERS, HEADS)


def agreement_of(budgets: tuple[int, ...], seed: int, prompts: int = PROMPTS) -> xr.Dataset:
    """Chunk (layer + head) mod 16 finds much alone, the others little; the last layer was not measured."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.02, 0.1, (prompts, len(budgets), LAYERS, HEADS, CHUNKS))
    for layer in range(LAYERS):
        for head in range(HEADS):
            values[:, :, layer, head, (layer + head) % CHUNKS] = 0.6 + 0.02 * rng.random((prompts, len(budgets)))
    values[:, :, -1] = np.nan
    chance = np.broadcast_to(np.array(budgets)[:, None] / 400, (prompts, len(budgets), LAYERS)).copy()
    chance[:, :, -1] = np.nan
    return statistics.dataset(
        INFO,
        [
            (Variable("agreement", ("prompt", "budget", "layer", "head", "chunk"), "1", "agreement"), values),
            (Variable("chance_agreement", ("prompt", "budget", "layer"), "1", "chance"), chance),
        ],
        {"budget": list(budgets)},
        {"queries": 5, "seed": 0, "fingerprint": "f" * 64},
    )


def compound_of() -> xr.Dataset:
    """Dominant chunks find most, `recent` a third; the last layer was not measured."""
    means = {"random": 0.04, "recent": 0.33, "stream": 0.3, "snapkv": 0.4, "random chunks 8": 0.5, "chunks 2": 0.45}
    means |= {"chunks 4": 0.6, "chunks 8": 0.75}
    rng = np.random.default_rng(3)
    values = np.stack([np.full((PROMPTS, len(BUDGETS), LAYERS, HEADS), mean) for mean in means.values()], 1)
    values += rng.normal(0, 0.01, values.shape)
    values[:, :, :, -1] = np.nan
    return statistics.dataset(
        INFO,
        [(Variable("compound_agreement", ("prompt", "choice", "budget", "layer", "head"), "1", "compound"), values)],
        {"budget": list(BUDGETS), "choice": list(means)},
    )


def fake_measured(bare: bool = False) -> Measured:
    angles = 10_000.0 ** (-np.arange(CHUNKS) / CHUNKS)
    waves = np.tile(2 * np.pi / angles, (LAYERS, 1))
    waves[:, -1] = np.inf
    waves[-1] = np.nan
    tasks = {"text": agreement_of(BUDGETS, 0, 1 if bare else PROMPTS)}
    if not bare:
        tasks["needle"] = agreement_of(BUDGETS[:1], 1)
    return Measured(
        pairing="adjacent" if bare else "rotate_half",
        rotary_dims=2 * CHUNKS - 2,
        order=tuple(range(2 * CHUNKS)),
        wavelengths=np.full_like(waves, np.nan) if bare else waves,
        rotary_layers=(0, 1, 2),
        tasks=tasks,
        compound=Missing(reason="there is one prompt") if bare else compound_of(),
        budget=BUDGETS[0],
        sizes=SIZES,
        context=CONTEXT,
        n_tokens=9999,
    )


@lru_cache
def fake_frequency_report(bare: bool = False) -> FrequencyReport:
    return frequency_report(INFO, fake_measured(bare), fake_provenance(), (NOTE,))


def fake_frequency_statistics() -> xr.Dataset:
    return frequency_statistics(INFO, fake_measured())
