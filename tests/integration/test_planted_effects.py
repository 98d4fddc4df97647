"""On planted circuits the sweep finds exactly the heads that answers need, and the head report labels them."""

from __future__ import annotations

from functools import cache

import pytest

from attnscope.core.ids import HeadId
from attnscope.core.report import HeadReport, Measured, Missing
from attnscope.engine.answer_effects import answer_effects
from attnscope.engine.attribution.patching import attribute
from attnscope.engine.sweep.alternatives import OtherRun
from attnscope.models._loading import load
from attnscope.report_plan import ReportPlan
from attnscope.tasks._answers import with_answers
from attnscope.testbed import planted
from attnscope.testbed.planted import PlantedSpec
from attnscope.workflow import report

N, LENGTH = 24, 32
TASKS = ("recall", "reasoning")


@cache
def made(seed: int):
    spec = planted.random_circuits(seed, context_length=256)
    model, tokenizer = planted.plant(spec)
    pairs = {"recall": planted.recall_prompts(spec, N, LENGTH), "reasoning": planted.reasoning_prompts(spec, N, LENGTH)}
    return spec, load(model, tokenizer=tokenizer), pairs


def reported(scope, spec: PlantedSpec, pairs) -> HeadReport:
    prompts = {
        "text": planted.text_prompts(spec, n=6, length=256, seed=1),
        "short": planted.text_prompts(spec, n=20, length=64, seed=2),
        "needle": with_answers(planted.needle_prompts(spec, n=8, length=160, seed=3)),
        **pairs,
    }
    return report(scope, ReportPlan(context=256, period=60, repeats=6, echoes=3), prompts=prompts)


def labels_of(found: HeadReport) -> dict[str, set[str]]:
    return {str(record.id): {label.name for label in record.labels} for record in found.records}


@pytest.mark.parametrize("seed", range(6))
def test_sweeps_find_exactly_the_planted_heads(seed: int) -> None:
    spec, scope, pairs = made(seed)
    for task in TASKS:
        effects = answer_effects(scope, pairs[task], task)[f"{task}_effect"]
        assert effects.notnull().all()
        mean = effects.mean("prompt").values
        rows = scope.info.rows
        found = tuple(head for head in scope.info.heads if mean[rows[head.layer], head.head] >= 0.15)
        assert found == planted.circuit_heads(spec)[task]
        others = [mean[rows[head.layer], head.head] for head in scope.info.heads if head not in found]
        assert max(map(abs, others)) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_the_head_report_labels_circuits(seed: int) -> None:
    spec, scope, pairs = made(seed)
    found = reported(scope, spec, pairs)
    assert labels_of(found) == {str(head): set(names) for head, names in planted.expected_labels(spec).items()}
    sets = {item.name: item for item in found.provenance.prompt_sets}
    assert all(sets[task].n_prompts == N and sets[task].parameters == {"task": "given"} for task in TASKS)
    record = found[planted.circuit_heads(spec)["recall"][0]]
    effect = record.scores["recall_effect"]
    assert isinstance(effect, Measured)
    assert (effect.n, effect.units, effect.prompt_set) == (N, "1", "recall")
    assert effect.interval is not None
    assert effect.interval.low <= effect.value <= effect.interval.high


def test_a_twin_that_answers_nothing_has_no_effect_and_says_so() -> None:
    spec, _, pairs = made(1)
    twin = spec.without(planted.circuit_heads(spec)["reasoning"][-1])
    model, tokenizer = planted.plant(twin)
    found = reported(load(model, tokenizer=tokenizer), twin, pairs)
    assert labels_of(found) == {str(head): set(names) for head, names in planted.expected_labels(twin).items()}
    missing = found.records[0].scores["reasoning_effect"]
    assert isinstance(missing, Missing)
    assert f"of {N} given reasoning prompts, fewer than 8" in missing.reason


def ranked(scope, pairs) -> list[HeadId]:
    found = attribute(scope, pairs, "head", metric="logit_difference", alternative=OtherRun())
    size = dict(zip(scope.info.heads, found.effect.mean(0), strict=True))
    return sorted(size, key=lambda head: -size[head])


@pytest.mark.parametrize("seed", range(6))
def test_attribution_patching_finds_what_writes_the_answer_and_barely_sees_what_feeds_a_saturated_softmax(
    seed: int,
) -> None:
    spec, scope, pairs = made(seed)
    circuits = planted.circuit_heads(spec)
    recall = circuits["recall"]
    assert set(ranked(scope, pairs["recall"])[: len(recall)]) == set(recall)
    first, *_ = ranked(scope, pairs["reasoning"])
    assert first == circuits["reasoning"][-1]
    found = attribute(scope, pairs["reasoning"], "head", metric="logit_difference", alternative=OtherRun())
    effect = dict(zip(scope.info.heads, found.effect.mean(0), strict=True))
    feeding = circuits["reasoning"][:-1]
    assert all(-0.02 * effect[first] < effect[head] < 0 for head in feeding), "of the wrong sign, and far too small"
