"""Scores of a head report beyond attention: what a head copies, how much the loss and the answers need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .core.errors import TaskError, UnsupportedModelError
from .core.track import Track
from .engine.accuracy import token_accuracy
from .engine.answer_effects import answer_effects
from .engine.copying import copying_scores
from .engine.importance import head_importance
from .report_plan import ReportPlan
from .tasks._answers import with_answers
from .tasks._facts import Source
from .tasks._matched import matched
from .tasks.reasoning_pairs import ReasoningPairs
from .tasks.recall_pairs import RecallPairs

if TYPE_CHECKING:
    from .models._base import Scope

TASKS = ("recall", "reasoning")
FEWEST = 8
"""Answered prompts below which an effect is not measured."""
READ_UP_TO = 8192
"""Tokens of a vocabulary up to which copying is scored on what a head's layer reads, two tokens forward for each (3.6 s
for the embedded model's 4,096 on two CPU cores); larger ones are scored on embeddings, without a forward."""
LOSS_PROMPTS, LOSS_TOKENS = 8, 512
"""Text prompts of importance, and tokens of each, at most."""


@dataclass
class HeadEffects:
    """What was measured.

    Attributes:
        statistics: `copying`, `importance`, `recall`, `reasoning`.
        prompts: name → (task, or None where prompts were given; the prompts that were answered).
        missing: score → reason.
        notes: for the provenance.
    """

    statistics: dict[str, xr.Dataset] = field(default_factory=dict)
    prompts: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def head_effects(
    scope: Scope,
    plan: ReportPlan,
    given: Mapping[str, Any],
    text: Any,
    partial: Path | None,
    *,
    implementation: str,
    batch_tokens: int,
    track: Track,
) -> HeadEffects:
    """Measure copying, importance, and the effects of single heads on recall and reasoning.

    Args:
        scope: the model.
        plan: of the head report.
        given: the caller's own pairs, by task.
        text: text prompts, or None.
        partial: keep unfinished sweeps there.
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most.
        track: progress.

    Raises:
        TaskError: pairs that were given lack a column or are too long.
        SweepError: one head's run failed.
        DeviceError: the device ran out of memory.
        OutputError: an unfinished sweep is another job's.
    """
    found = HeadEffects()
    with track("Copying", 1):
        try:
            tokens = "read" if scope.info.vocab_size <= READ_UP_TO else "embedding"
            found.statistics["copying"] = copying_scores(scope, tokens=tokens, batch_tokens=batch_tokens)  # type: ignore[arg-type]
        except UnsupportedModelError as error:
            found.missing["copying"] = str(error)
    _importance(scope, text, found, batch_tokens, track)
    options = {"implementation": implementation, "batch_tokens": batch_tokens}
    for task, (made_by, pairs) in _pairs(scope, plan, given, found, options, track).items():
        checkpoint = partial / f"{task}.safetensors" if partial is not None else None
        with track(
            f"Ablating heads on {task}", len(pairs) * scope.info.n_heads * len(scope.info.attention_layers)
        ) as go:
            try:
                found.statistics[task] = answer_effects(
                    scope,
                    pairs,
                    task,
                    progress=lambda done, _, go=go: go(done),  # type: ignore[misc]
                    checkpoint=checkpoint,
                    **options,  # type: ignore[arg-type]
                )
            except UnsupportedModelError as error:
                found.missing[f"{task}_effect"] = str(error)
                continue
        found.prompts[task] = made_by, pairs
    if found.prompts:
        found.notes.append(
            f"Effects on {' and '.join(found.prompts)} are of one head ablated alone, at all tokens, to its mean over"
            " the tokens of the same prompts, all of which the whole model answers."
        )
    return found


def _importance(scope: Scope, text: Any, found: HeadEffects, batch_tokens: int, track: Track) -> None:
    from datasets import Dataset

    if text is None or not len(text):
        found.missing["importance"] = "there is no text to measure the loss on"
        return
    ids = [row[:LOSS_TOKENS] for row in text[:LOSS_PROMPTS]["input_ids"]]
    with track("Importance", len(ids)) as advance:
        try:
            data = head_importance(
                scope,
                Dataset.from_dict({"input_ids": ids}),
                batch_tokens=min(batch_tokens, LOSS_PROMPTS * LOSS_TOKENS),
                progress=lambda done, _: advance(done),
            )
        except UnsupportedModelError as error:
            found.missing["importance"] = str(error)
            return
    found.statistics["importance"] = data.assign_attrs(prompt_set="text")


def _pairs(
    scope: Scope,
    plan: ReportPlan,
    given: Mapping[str, Any],
    found: HeadEffects,
    options: Mapping[str, Any],
    track: Track,
) -> dict[str, tuple[Any, Any]]:
    """Return task → (what made the pairs, answered pairs); what cannot be measured is in `found.missing`."""
    chosen: dict[str, tuple[Any, Any]] = {}
    for task in given:
        _choose(task, None, given[task], _right(scope, given[task], options, track, task), chosen, found, "given")
    wanted = [task for task in TASKS if task not in given]
    count = plan.effect_prompts(scope.info)
    if count and scope.tokenizer is not None:
        _drawn(scope, plan, wanted, chosen, found, options, track)
        return chosen
    lacks = "the model has no tokenizer" if count else "it was left out (--circuit-prompts 24 measures it)"
    found.missing |= {f"{task}_effect": f"{lacks}, so there are no {task} prompts" for task in wanted}
    return chosen


def _drawn(
    scope: Scope,
    plan: ReportPlan,
    wanted: list[str],
    chosen: dict[str, tuple[Any, Any]],
    found: HeadEffects,
    options: Mapping[str, Any],
    track: Track,
) -> None:
    """Draw pairs from the first source that the model answers for a task: its own world, then everybody's."""
    sources: tuple[Source, ...] = ("pocket", "public") if scope.info.model_id == "pocket" else ("public", "pocket")
    reasons: dict[str, list[str]] = {task: [] for task in wanted}
    for source in sources:
        left = [task for task in wanted if task not in chosen]
        if not left:
            return
        makers = (
            RecallPairs(n=plan.effect_prompts(scope.info), seed=plan.seed, source=source),
            ReasoningPairs(n=plan.effect_prompts(scope.info), seed=plan.seed, source=source),
        )
        try:
            pairs = matched(scope.tokenizer, *makers)
            for task, maker, rows in zip(TASKS, makers, pairs, strict=True):
                if task in left:
                    right = _right(scope, rows, options, track, task)
                    _choose(task, maker, rows, right, chosen, found, source)
                    reasons[task].append(found.missing.pop(f"{task}_effect", ""))
        except TaskError as error:
            for task in left:
                reasons[task].append(f"{source}: {error}")
    for task in wanted:
        if task not in chosen:
            found.missing[f"{task}_effect"] = "; ".join(reasons[task])


def _right(scope: Scope, pairs: Any, options: Mapping[str, Any], track: Track, task: str) -> np.ndarray:
    with track(f"Checking {task} prompts", 1):
        return token_accuracy(scope, with_answers(pairs), **options) == 1


def _choose(
    task: str, maker: Any, pairs: Any, right: np.ndarray, chosen: dict[str, Any], found: HeadEffects, source: str
) -> None:
    answered = int(right.sum())
    if answered < FEWEST:
        found.missing[f"{task}_effect"] = (
            f"the model answered {answered} of {len(right)} {source} {task} prompts, fewer than {FEWEST}"
        )
        return
    chosen[task] = maker, pairs.select(np.flatnonzero(right))
    found.notes.append(f"The model answered {answered} of {len(right)} {source} {task} prompts; only these count.")
