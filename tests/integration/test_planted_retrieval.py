"""Planted retrieval heads are found exactly, by decoding and by teacher forcing; echo and induction heads are not."""

from __future__ import annotations

import numpy as np
import pytest

from attnscope.core.ids import HeadId
from attnscope.engine.ablation_curve import ablation_curve
from attnscope.engine.accuracy import token_accuracy
from attnscope.engine.collect import collect
from attnscope.engine.retrieval_decoding import decoded_retrieval
from attnscope.models._loading import load
from attnscope.retrieval_plan import THRESHOLD
from attnscope.tasks._answers import with_answers
from attnscope.testbed import planted
from attnscope.testbed.planted import PlantedSpec


@pytest.mark.parametrize("seed", range(6))
def test_exactly_the_planted_retrieval_heads_score(seed: int) -> None:
    spec = planted.random_spec(seed)
    model, tokenizer = planted.plant(spec)
    scope = load(model, tokenizer=tokenizer)
    prompts = planted.needle_prompts(spec, n=6, length=160, seed=seed)
    forced = collect(scope, with_answers(prompts), ["retrieval"]).retrieval.mean("prompt").values
    decoded = decoded_retrieval(scope, prompts, steps=3)
    assert (decoded.answer_recall == 1).all()
    scores = decoded.retrieval_decoded.mean("prompt").values
    heads = set(spec.of_kind("retrieval"))
    assert heads
    for found in (scores, forced):
        assert {HeadId(*h) for h in scope.info.heads if found[h] >= THRESHOLD} == heads
        assert all(found[h] == 1 for h in heads)


def test_an_echo_head_echoes_and_does_not_retrieve() -> None:
    echo, retrieving = HeadId(1, 0), HeadId(2, 0)
    spec = PlantedSpec(heads={HeadId(0, 0): "previous_token", echo: "duplicate_token", retrieving: "retrieval"})
    model, tokenizer = planted.plant(spec)
    scope = load(model, tokenizer=tokenizer)
    echoes = collect(scope, planted.repeat_prompts(spec, n=4, period=60), ["echo", "razor_induction"])
    retrieval = decoded_retrieval(scope, planted.needle_prompts(spec, n=6, length=160), steps=3).retrieval_decoded
    of_echo = {name: float(echoes[name].mean("prompt")[echo]) for name in ("echo", "razor_induction")}
    assert of_echo["echo"] > 0.9
    assert of_echo["razor_induction"] < 0.1
    assert float(retrieval.mean("prompt")[echo]) == 0
    assert float(retrieval.mean("prompt")[retrieving]) == 1


def test_without_the_planted_heads_nothing_is_answered_and_random_others_cost_nothing() -> None:
    heads, support = [HeadId(1, 1), HeadId(2, 2)], HeadId(0, 0)
    kinds = {support: "previous_token", heads[0]: "retrieval", heads[1]: "retrieval", HeadId(2, 0): "local"}
    spec = PlantedSpec(heads=kinds)  # type: ignore[arg-type]
    model, tokenizer = planted.plant(spec)
    scope = load(model, tokenizer=tokenizer)
    prompts = with_answers(planted.needle_prompts(spec, n=6, length=160))

    def accuracy(edits: object) -> np.ndarray:
        return token_accuracy(scope, prompts, edits=edits)  # type: ignore[arg-type]

    assert accuracy([]).tolist() == [1.0] * 6
    for step in ablation_curve(scope.info, heads, accuracy, excluded=[*heads, support], counts=(2,), draws=4):
        assert step.ablated.max() < 0.5, step.mode
        assert step.controls.min() == 1, step.mode
