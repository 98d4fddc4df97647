"""The job of `attnscope frequency`: prompts → agreement of chunks → dominant chunks → how well they choose keys."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .analyses.frequency import dominant_chunks
from .core.errors import TaskError
from .core.frequency_report import FrequencyReport, Pairing
from .core.frequency_run import check_frequency_run, write_frequency_run
from .core.report import Missing
from .core.track import Track, silent
from .engine.batches import check_prompts
from .engine.compound_agreement import compound_agreement
from .engine.frequency import agreement
from .engine.frequency_pass import Sampling
from .frequency_plan import FrequencyPlan, task_builders, text_task
from .models._loading import load, require_causal
from .models._rotary import Rotary, adjacent_order, find_rotary
from .provenance import provenance
from .reports.frequency import frequency_report as built
from .reports.frequency_statistics import Measured, frequency_statistics, mean_agreement

if TYPE_CHECKING:
    from .models._base import Scope

ALONE = "there is one prompt, and chunks are never tried on the prompts that they were ranked on"


def frequency_report(
    scope: Scope | None = None,
    plan: FrequencyPlan | None = None,
    *,
    prompts: Any = None,
    out: str | Path | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> FrequencyReport:
    """Find the RoPE chunks that pick each head's keys, and say how well they do it on other prompts.

    Args:
        scope: a loaded causal model with RoPE; None loads the embedded one.
        plan: what to measure.
        prompts: your own `datasets.Dataset` with `input_ids` in place of the text: chunks are ranked on the first
            half and tried on the second.
        out: write a run folder there; an interrupted call goes on from `<out>.partial` when it is repeated.
        implementation: kernel implementation of the forwards.
        batch_tokens: padded tokens a batch at most.
        track: progress, see `core.track.Track`.
        command: recorded in the provenance.

    Raises:
        UnsupportedModelError: the model is not causal, or has no rotary embedding that turns pairs of dimensions.
        TaskError: the text is missing, empty, too short or too long.
        DeviceError: the device ran out of memory.
        OutputError: `out` cannot be written or holds other files.

    Example:
        >>> import attnscope
        >>> frequency_report().choice("chunks 16").agreement.value  # doctest: +SKIP
        0.7
    """
    target = None if out is None else check_frequency_run(out)
    partial = None if target is None else target.with_name(f"{target.name}.partial")
    report, statistics = measure_frequency(
        scope or load(),
        plan or FrequencyPlan(),
        prompts=prompts,
        partial=partial,
        implementation=implementation,
        batch_tokens=batch_tokens,
        track=track,
        command=command,
    )
    if target is not None and partial is not None:
        from .present.frequency_html import frequency_page

        write_frequency_run(target, report, statistics, lambda: frequency_page(report))
        shutil.rmtree(partial, ignore_errors=True)
    return report


def measure_frequency(
    scope: Scope,
    plan: FrequencyPlan,
    *,
    prompts: Any = None,
    partial: Path | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> tuple[FrequencyReport, dict[str, xr.Dataset]]:
    """Return the report and its statistics: `frequency`, `agreement` and, where it was measured, `compound`.

    Args:
        partial: keep finished prompts there.

    Raises:
        As `frequency_report`.
    """
    track = track or silent
    require_causal(scope, "the frequency report")
    rotary = find_rotary(scope)
    notes: list[str] = []
    task = text_task(plan, scope.info, scope.tokenizer is not None)
    text = task.build(scope.tokenizer) if prompts is None else prompts
    context = max(check_prompts(text, scope.info.context_length))
    budgets, sizes = plan.budgets_for(context), plan.sizes_for(scope.info.head_dim // 2)
    budget = min(budgets) if plan.budget is None else plan.budget
    if budget not in budgets:
        raise TaskError("frequency budget", found=budget, expected=f"one of {budgets}")
    ranked, held_out = _halves(text)
    sets = {"text": ranked, **_tasks(scope, plan, notes)}
    order = rotary.order if plan.pairing == "model" else adjacent_order(scope.info.head_dim)
    options: dict[str, Any] = {"order": order, "implementation": implementation, "batch_tokens": batch_tokens}
    tasks: dict[str, xr.Dataset] = {}
    for name, chosen in sets.items():
        sampling = Sampling(budgets if name == "text" else (budget,), plan.queries, plan.seed)
        with track(f"Agreement on {name}", sum(map(len, chosen["input_ids"]))) as advance:
            tasks[name] = agreement(
                scope,
                chosen,
                rotary,
                sampling,
                **options,
                progress=lambda done, _, advance=advance: advance(done),  # type: ignore[misc]
                checkpoint=_checkpoint(partial, name),
            )
    compound: xr.Dataset | Missing = Missing(
        reason="there is one prompt, and chunks are never tried on their own prompts"
    )
    ranking = dominant_chunks(mean_agreement(tasks["text"], budget))
    if (ranking < 0).all():
        compound = Missing(reason="no chunk was ranked")
    elif held_out is not None:
        with track("Trying the dominant chunks", sum(map(len, held_out["input_ids"]))) as advance:
            compound = compound_agreement(
                scope,
                held_out,
                ranking,
                sizes,
                _measured_layers(rotary, ranking, scope),
                Sampling(budgets, plan.queries, plan.seed + 1),
                **options,
                progress=lambda done, _: advance(done),
                checkpoint=_checkpoint(partial, "compound"),
            )
    everything = {**sets, **({} if held_out is None else {"held out": held_out})}
    found = Measured(
        pairing=_pairing(plan, rotary),
        rotary_dims=rotary.dims,
        order=order,
        wavelengths=_wavelengths(scope, rotary, order),
        rotary_layers=tuple(rotary.frequencies),
        tasks=tasks,
        compound=compound,
        budget=budget,
        sizes=sizes,
        context=context,
        n_tokens=sum(sum(map(len, one["input_ids"])) for one in everything.values()),
    )
    if isinstance(compound, Missing):
        notes.append(f"Choices of keys were not measured: {compound.reason}.")
    absent = [layer for layer in scope.info.attention_layers if layer not in rotary.frequencies]
    if absent:
        notes.append(f"Layers {', '.join(map(str, absent))} have no RoPE, so no chunks: missing.")
    makers = {name: made for name, (made, _) in task_builders(plan, scope.info).items()}
    given = None if prompts is not None else task
    recorded = {name: (makers.get(name, given), chosen) for name, chosen in everything.items()}
    ran = {name for one in tasks.values() for name in one.attrs["implementation"].split(", ")}
    made = provenance(scope, plan.seed, recorded, ran, command)
    data = {"frequency": frequency_statistics(scope.info, found), "agreement": tasks["text"]}
    if not isinstance(compound, Missing):
        data["compound"] = compound
    return built(scope.info, found, made, tuple(notes)), data


def _halves(text: Any) -> tuple[Any, Any]:
    """Return the prompts that chunks are ranked on, and the others; None where there is only one."""
    n = len(text)
    if n == 1:
        return text, None
    return text.select(range(n - n // 2)), text.select(range(n - n // 2, n))


def _tasks(scope: Scope, plan: FrequencyPlan, notes: list[str]) -> Mapping[str, Any]:
    builders = task_builders(plan, scope.info)
    if scope.tokenizer is None:
        if builders:
            notes.append(f"The model has no tokenizer, so there is no {', '.join(builders)} to compare with.")
        return {}
    built_sets = {}
    for name, (_, build) in builders.items():
        try:
            built_sets[name] = build(scope.tokenizer)
        except TaskError as error:
            notes.append(f"No prompts for {name}: {error}")
    return built_sets


def _checkpoint(partial: Path | None, name: str) -> Path | None:
    return None if partial is None else partial / f"{name}.safetensors"


def _measured_layers(rotary: Rotary, ranking: np.ndarray, scope: Scope) -> Rotary:
    """Return the rotary embedding without the layers in which nothing was ranked (their windows are too short)."""
    rows = scope.info.rows
    kept = {layer: angles for layer, angles in rotary.frequencies.items() if (ranking[rows[layer]] >= 0).all()}
    return Rotary(rotary.pairs, rotary.dims, rotary.head_dim, kept)


def _pairing(plan: FrequencyPlan, rotary: Rotary) -> Pairing:
    return "adjacent" if plan.pairing == "adjacent" else rotary.pairs


def _wavelengths(scope: Scope, rotary: Rotary, order: tuple[int, ...]) -> np.ndarray:
    """Return `[L, C]` tokens of a full turn; NaN in layers without RoPE, and where the pairing is not the model's."""
    waves = np.full((len(scope.info.attention_layers), scope.info.head_dim // 2), np.nan)
    if order == rotary.order:
        for layer, angles in rotary.frequencies.items():
            waves[scope.info.rows[layer]] = [2 * math.pi / angle if angle > 0 else math.inf for angle in angles]
    return waves
