"""On planted models, training finds the one head that needs the whole context."""

from __future__ import annotations

import numpy as np
import pytest

from attnscope.analyses.kv_choice import full_under_budget
from attnscope.engine.gates.duo_attention import DuoAttention
from attnscope.engine.gates.hardkuma import HardKuma
from attnscope.engine.gates.kept import kept_accuracy
from attnscope.engine.gates.statistics import train_gates
from attnscope.models._base import Scope
from attnscope.models._loading import load
from attnscope.tasks._answers import with_answers
from attnscope.testbed import planted
from attnscope.testbed.planted import PlantedSpec

WINDOW = {"sink_tokens": 1, "recent_tokens": 12}


def loaded(spec: PlantedSpec) -> Scope:
    model, tokenizer = planted.plant(spec)
    return load(model, tokenizer=tokenizer)


def needles(spec: PlantedSpec, seed: int = 3):
    return with_answers(planted.needle_prompts(spec, n=4, length=80, seed=seed))


def retrieval_groups(spec: PlantedSpec) -> np.ndarray:
    """`[L, G]` bool: the KV heads that serve a planted retrieval head."""
    found = np.zeros((spec.n_layers, spec.n_kv_heads), dtype=bool)
    for head in spec.of_kind("retrieval"):
        found[head.layer, head.head // spec.group_size] = True
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_duo_gates_stay_open_at_retrieval_heads_alone(seed: int) -> None:
    spec = planted.random_spec(seed)
    scope, expected = loaded(spec), retrieval_groups(spec)
    assert expected.sum() == 1
    made = train_gates(scope, needles(spec), DuoAttention(steps=60, learning_rate=0.06, **WINDOW))
    gates = made["duo_gate"].values
    assert gates[expected].min() > 0.2
    assert gates[~expected].max() < 0.05
    budget = expected.mean()
    np.testing.assert_array_equal(full_under_budget([gates], budget), expected)
    kept = kept_accuracy(scope, needles(spec, seed=9), gates, budget, sinks=1, recent=12, draws=3)
    assert kept.accuracy == 1
    assert kept.excluded
    assert kept.controls.max() < 0.5


def test_hardkuma_gates_keep_retrieval_heads_alone_and_meet_the_density() -> None:
    spec = planted.random_spec(2)
    expected = retrieval_groups(spec)
    target = float(expected.mean())
    method = HardKuma(steps=160, learning_rate=0.04, share=0.1, target=target, constraint=0.02, **WINDOW)
    made = train_gates(loaded(spec), needles(spec), method)
    assert made["hardkuma_keep"].values[expected].min() > 0.9
    assert made["hardkuma_keep"].values[~expected].max() < 0.05
    assert abs(float(made["density"][-1]) - target) < 0.02
    assert float(made["density"][0]) == pytest.approx(11 / 12)
    full = made["hardkuma_full"].values
    assert full[0].all()
    np.testing.assert_array_equal(full[1:], expected[1:])


def test_gates_per_query_head_are_reduced_by_the_largest() -> None:
    spec = planted.random_spec(1)
    method = DuoAttention(steps=60, learning_rate=0.06, per="query_head", **WINDOW)
    made = train_gates(loaded(spec), needles(spec), method)
    heads = made["duo_gate_head"].values
    head = spec.of_kind("retrieval")[0]
    assert np.unravel_index(heads.argmax(), heads.shape) == (head.layer, head.head)
    np.testing.assert_array_equal(made["duo_gate"].values, heads.reshape(spec.n_layers, spec.n_kv_heads, -1).max(-1))
    assert made.attrs["kv_reduction"] == "max"
