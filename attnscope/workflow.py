"""The main job: prompts → one streaming pass a prompt set → a report of every head."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .core.errors import TaskError
from .core.report import CausalCheck, HeadReport, Provenance
from .core.run_directory import check_writable, write_run
from .core.track import Track, silent
from .engine.ablations import ablate_with_control
from .engine.accuracy import token_accuracy
from .engine.batches import check_prompts
from .engine.collect import NEAR, collect
from .head_effects import TASKS, HeadEffects, head_effects
from .models._loading import load, require_causal
from .provenance import provenance
from .report_extras import extras
from .report_plan import SCREENED, ReportPlan, Section, sections
from .reports.build import PROMPT_SET_OF, build
from .reports.causal import causal_check
from .tasks._answers import with_copies_as_answers
from .tasks.random_tokens import RandomTokens

if TYPE_CHECKING:
    from .models._base import Scope


def report(
    scope: Scope | None = None,
    plan: ReportPlan | None = None,
    *,
    out: str | Path | None = None,
    prompts: Mapping[str, Any] | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> HeadReport:
    """Measure and classify every head of a model.

    Args:
        scope: a loaded model; None loads the embedded pocket model.
        plan: what to measure; None takes the defaults.
        out: write a run directory there (statistics, tables, report.json, report.html); an interrupted call goes on
            from `<out>.partial` when it is repeated.
        prompts: your own `datasets.Dataset` for some of the prompt sets `text`, `short`, `repeats`, `echoes`,
            `needle`, with the columns that the set's collectors need, and `recall`, `reasoning`, with `input_ids` and
            `answer_ids`.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        track: progress, see `Track`.
        command: recorded in the provenance.

    Returns:
        HeadReport: `report.heads` is a DataFrame with one row a query head.

    Raises:
        UnsupportedModelError: the model is not causal.
        TaskError: the text is missing, empty, too short or too long, or there is text but no tokenizer.
        SweepError: one head's ablation failed; a written report goes on from there when the call is repeated.
        DeviceError: the device ran out of memory; the message says where, and what would fit.
        OutputError: `out` cannot be written or holds other files.

    Example:
        >>> import attnscope
        >>> attnscope.report().heads_labelled("induction")  # doctest: +SKIP
        [L3H1, L4H6]
    """
    scope, plan = scope or load(), plan or ReportPlan()
    track = track or silent
    require_causal(scope, "the head report")
    target = check_writable(out) if out is not None else None
    partial = target.with_name(f"{target.name}.partial") if target is not None else None
    parts = sections(plan, scope.info, scope.tokenizer is not None)
    given = dict(prompts or {})
    _check_names(given, [*(part.name for part in parts), *TASKS])
    chosen_sets = {part.name: _prompts(part, given, scope.tokenizer) for part in parts}
    missing = {
        score: part.skipped
        for part in parts
        for score, prompt_set in PROMPT_SET_OF.items()
        if part.skipped is not None and prompt_set == part.name and chosen_sets[part.name] is None
    }
    if plan.mode == "screen":
        missing["positional_share"] = SCREENED
    if chosen_sets["needle"] is not None:
        with track("Checking needles", 1):
            chosen_sets["needle"] = _answered(scope, chosen_sets["needle"], missing, implementation, batch_tokens)
    statistics: dict[str, xr.Dataset] = {}
    for part in parts:
        chosen = chosen_sets[part.name]
        if chosen is None:
            continue
        checkpoint = partial / f"{part.name}.safetensors" if partial is not None else None
        with track(f"Collecting {part.name}", sum(check_prompts(chosen, scope.info.context_length))) as advance:
            statistics[part.name] = collect(
                scope,
                chosen,
                part.collectors,
                implementation=implementation,
                screen=part.screen,
                batch_tokens=batch_tokens,
                progress=lambda done, _, advance=advance: advance(done),  # type: ignore[misc]
                checkpoint=checkpoint,
            ).assign_attrs(prompt_set=part.name)
    effects = head_effects(
        scope,
        plan,
        {task: given[task] for task in TASKS if task in given},
        chosen_sets["text"],
        partial,
        implementation=implementation,
        batch_tokens=batch_tokens,
        track=track,
    )
    provenance = _provenance(scope, plan, parts, chosen_sets, set(given), statistics, effects, command)
    statistics, missing = statistics | effects.statistics, missing | effects.missing
    token = scope.tokenizer.decode if scope.tokenizer is not None else str
    draft = build(scope.info, statistics, provenance, decode_token=token, missing=missing, budget=plan.budget)
    checks = _causal_checks(scope, draft, chosen_sets, plan, implementation, batch_tokens, track)
    finished = draft.model_copy(update={"causal_checks": checks})
    if target is not None and partial is not None:
        from .present.html import render

        more = extras(
            scope,
            plan,
            chosen_sets["text"],
            partial,
            implementation=implementation,
            batch_tokens=batch_tokens,
            track=track,
            command=command,
        )
        page = render(finished, statistics, more.sinks, more.retrieval, more.frequency, more.gates)
        write_run(target, finished, statistics | more.statistics, {"report.html": page, **more.files()})
        shutil.rmtree(partial, ignore_errors=True)
    return finished


def _check_names(given: Mapping[str, Any], names: list[str]) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise TaskError("prompts of a report", found=f"sets {unknown}", expected=f"some of {names}")


def _prompts(part: Section, given: Mapping[str, Any], tokenizer: Any) -> Any:
    """Return the prompts of a section, or None where it is skipped."""
    if part.name in given:
        return given[part.name]
    return None if part.skipped else part.build(tokenizer)


def _answered(scope: Scope, needles: Any, missing: dict[str, str], implementation: str, batch_tokens: int) -> Any:
    """Keep the needles that the model answers: only they count as trials (2404.15574)."""
    right = token_accuracy(scope, needles, implementation=implementation, batch_tokens=batch_tokens) == 1
    if not right.any():
        missing["retrieval"] = f"the model answered 0 of {len(right)} needles, so there is no trial to score"
        return None
    return needles.select(np.flatnonzero(right))


def _causal_checks(
    scope: Scope,
    draft: HeadReport,
    prompts: Mapping[str, Any],
    plan: ReportPlan,
    implementation: str,
    batch_tokens: int,
    track: Track,
) -> tuple[CausalCheck, ...]:
    copying = with_copies_as_answers(prompts["repeats"])
    asked: list[tuple[str, str, str, Any, int]] = [
        ("induction", "in-context copying accuracy", "repeats", copying, plan.draws)
    ]
    if prompts["needle"] is not None:
        needles = prompts["needle"].select(range(min(plan.ablated_needles, len(prompts["needle"]))))
        asked.append(("retrieval", "needle answer accuracy", "needle", needles, plan.needle_draws))
    checks = []
    for label, metric, name, chosen, draws in asked:
        heads = draft.heads_labelled(label)
        if not heads:
            continue
        with track(f"Ablating {label} heads", 1):
            runs = ablate_with_control(
                scope.info,
                heads,
                lambda edits, chosen=chosen: token_accuracy(  # type: ignore[misc]
                    scope, chosen, edits=edits, implementation=implementation, batch_tokens=batch_tokens
                ),
                draws=draws,
                seed=plan.seed,
            )
        check = causal_check(label, heads, metric, name, runs.baseline, runs.ablated, runs.controls, runs.layer_matched)
        checks += [check] if check is not None else []
    return tuple(checks)


def _provenance(
    scope: Scope,
    plan: ReportPlan,
    parts: list[Section],
    prompts: Mapping[str, Any],
    given: set[str],
    statistics: Mapping[str, xr.Dataset],
    effects: HeadEffects,
    command: str | None,
) -> Provenance:
    sets = {
        part.name: (None if part.name in given else part.task, prompts[part.name])
        for part in parts
        if prompts[part.name] is not None
    }
    implementations = [data.attrs["implementation"] for data in statistics.values()]
    notes = (*_notes(parts, given), *effects.notes)
    return provenance(scope, plan.seed, sets | effects.prompts, implementations, command, notes)


def _notes(parts: list[Section], given: set[str]) -> tuple[str, ...]:
    notes = []
    noise = [part.name for part in parts if isinstance(part.task, RandomTokens) and part.name not in given]
    if noise:
        sets = " and ".join(noise)
        notes.append(f"The model has no tokenizer, so the prompt sets {sets} are uniform random tokens, not language.")
    for part in parts:
        if part.screen is not None:
            notes.append(
                f"On {part.name}, entropy, its share and the largest weight are means over one query in"
                f" {part.screen.stride}; received mass is exact for keys above {part.screen.threshold:.0%} and an"
                f" unbiased estimate below; distances are binned up to {NEAR}."
            )
    return tuple(notes)
