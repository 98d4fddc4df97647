"""On planted models every planted sink comes back with its first block, lifetime and writer, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from attnscope.analyses.residual_runs import Thresholds, runs
from attnscope.core.errors import AttnscopeError
from attnscope.core.report import Missing
from attnscope.core.sink_report import ResidualEvidence, SinkReport
from attnscope.edits.rescale_write import RescaleWrite
from attnscope.engine.loss import next_token_loss
from attnscope.engine.sink_trace import trace
from attnscope.engine.sink_vectors import vectors
from attnscope.models._loading import load
from attnscope.sink_workflow import SinkPlan, sink_report
from attnscope.testbed import planted
from attnscope.testbed.planted import PlantedSink, PlantedSpec
from attnscope.testbed.planted.vocabulary import Vocabulary

LENGTH = 64


def random_sinks(seed: int) -> tuple[PlantedSpec, Dataset]:
    """One BOS sink and up to two word sinks: random block, lifetime, norm; and two prompts that hold the words once."""
    rng = np.random.default_rng([seed, 77])
    n_layers = int(rng.integers(3, 7))
    words = rng.choice(Vocabulary(192).words, 3, replace=False).tolist()
    sinks = []
    for token in ["bos", *words[: rng.integers(0, 3)]]:
        layer = int(rng.integers(0, n_layers))
        lifetime = int(rng.integers(1, n_layers - layer + 1))
        sinks.append(PlantedSink(token, layer, lifetime, float(rng.uniform(100, 2000))))
    residual = (int(rng.integers(192)), float(rng.choice([-9.0, 9.0]))) if seed % 3 == 0 else None
    spec = PlantedSpec(n_layers=n_layers, seed=seed, sinks=tuple(sinks), residual_sink=residual)
    others = [word for word in Vocabulary(192).words if word not in words]
    prompts = []
    for _ in range(2):
        ids = [0, *rng.choice(others, LENGTH - 1).tolist()]
        for token, place in zip(words, rng.choice(np.arange(1, LENGTH), len(words), replace=False), strict=True):
            ids[place] = token
        prompts.append(ids)
    return spec, Dataset.from_dict({"input_ids": prompts})


def scope_of(spec: PlantedSpec) -> Any:
    model, tokenizer = planted.plant(spec)
    return load(model, tokenizer=tokenizer)


def planted_runs(spec: PlantedSpec, prompts: Dataset) -> set[tuple[int, int, int, int, int]]:
    """(prompt, position, first block, lifetime, writing block) of everything that was planted."""
    expected = set()
    for sink in spec.sinks:
        token = 0 if sink.token == "bos" else sink.token
        lifetime = len(sink.outputs(spec.n_layers))
        for prompt, ids in enumerate(prompts["input_ids"]):
            expected |= {(prompt, p, sink.layer, lifetime, sink.layer) for p, t in enumerate(ids) if t == token}
    return expected


def found_runs(report: SinkReport) -> set[tuple[int, int, int, int, int]]:
    found = set()
    for sink in report.sinks:
        assert isinstance(sink.residual, ResidualEvidence)
        assert sink.residual.writer is not None
        assert sink.residual.writer.module == "mlp"
        writer = sink.residual.writer.layer
        found.add((sink.prompt, sink.position, sink.residual.first_layer, sink.residual.lifetime, writer))
    return found


@pytest.mark.parametrize("seed", range(100))
def test_every_planted_sink_and_nothing_else(seed: int) -> None:
    spec, prompts = random_sinks(seed)
    report = sink_report(scope_of(spec), SinkPlan(interventions=False), prompts=prompts)
    assert found_runs(report) == planted_runs(spec, prompts)
    for sink in report.sinks:
        assert isinstance(sink.residual, ResidualEvidence)
        assert sink.residual.writer is not None
        total = sum(one.along for one in sink.residual.contributions)
        planted_norm = next(s.norm for s in spec.sinks if s.layer == sink.residual.first_layer)
        assert total == pytest.approx(sink.residual.norm, rel=0.1)
        assert sink.residual.writer.neurons is not None
        assert len(sink.residual.writer.neurons) == 1
        if len({s.layer for s in spec.sinks}) == len(spec.sinks):
            assert sink.residual.norm == pytest.approx(planted_norm, rel=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_a_model_without_planted_sinks_has_none(seed: int) -> None:
    spec, prompts = random_sinks(seed)
    bare = PlantedSpec(n_layers=spec.n_layers, seed=seed, residual_sink=spec.residual_sink)
    assert not sink_report(scope_of(bare), SinkPlan(interventions=False), prompts=prompts).sinks


def test_contributions_add_up_to_the_block_output() -> None:
    spec, prompts = random_sinks(4)
    where = [(0, 0), (1, 5)]
    read = vectors(scope_of(spec), prompts, where)
    assert read.attention is not None
    assert read.mlp is not None
    total = read.embedding[:, None] + np.cumsum(read.attention + read.mlp, axis=1)
    np.testing.assert_allclose(total, read.outputs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("lifetime", [2, 4])
def test_rescaling_the_planted_write_shortens_the_lifetime_as_planted(layer: int, lifetime: int) -> None:
    spec = PlantedSpec(n_layers=8, sinks=(PlantedSink("bos", layer, lifetime, 1200.0, fading=True),))
    _, prompts = random_sinks(2)
    scope = scope_of(spec)
    at = {0: (0,), 1: (0,)}
    for steps in range(lifetime + 2):
        edit = RescaleWrite(layer, positions=at, factor=steps / lifetime)
        traced = trace(scope, prompts, edits=[edit])
        lived = [(run.prompt, run.first, run.lifetime) for run in runs(traced)[0]]
        expected = min(steps, spec.n_layers - layer)
        assert lived == ([(0, layer, expected), (1, layer, expected)] if steps else [])
        norm = traced.residual_norm_at.values[0, layer, 0]
        assert norm == pytest.approx(1200 * steps / lifetime, rel=0.02) or steps == 0


def test_a_curve_gives_norm_and_lifetime_as_planted() -> None:
    spec = PlantedSpec(n_layers=8, sinks=(PlantedSink("bos", 1, 4, 1200.0, fading=True),))
    _, prompts = random_sinks(2)
    report = sink_report(scope_of(spec), SinkPlan(draws=1), prompts=prompts)
    (test,) = report.writes
    assert {point.factor: point.lifetime for point in test.curve} == {
        0.0: 0,
        0.25: 1,
        0.5: 2,
        0.75: 3,
        1.0: 4,
        1.5: 6,
    }
    norms = [point.norm for point in test.curve]
    assert norms == sorted(norms)
    assert test.neurons_removed == 1


def test_zeroing_the_writing_neuron_removes_the_sink_where_it_is_zeroed() -> None:
    spec = PlantedSpec(n_layers=5, sinks=(PlantedSink("bos", 2, 2, 500.0, fading=True),))
    _, prompts = random_sinks(2)
    scope = scope_of(spec)
    edit = RescaleWrite(2, positions={0: (0,)}, neurons=(0,))
    assert {run.prompt for run in runs(trace(scope, prompts, edits=[edit]))[0]} == {1}


def test_paper_mode_follows_the_papers_code() -> None:
    spec = PlantedSpec(n_layers=24, sinks=(PlantedSink("bos", 3, 18, 500.0), PlantedSink(100, 6, 6, 400.0)))
    prompts = Dataset.from_dict({"input_ids": [[0, *range(40, 90), 100, *range(101, 130)]]})
    found, untold = runs(trace(scope_of(spec), prompts), Thresholds(mode="paper"))
    assert not untold
    assert [(run.position, run.first, run.lifetime, run.kind) for run in found] == [
        (0, 3, 18, "primary"),
        (51, 6, 6, "secondary"),
    ]


def test_equal_tokens_and_one_layer() -> None:
    spec = PlantedSpec(n_layers=1, sinks=(PlantedSink("bos", 0, None, 300.0),))
    scope = scope_of(spec)
    report = sink_report(scope, SinkPlan(interventions=False), prompts=Dataset.from_dict({"input_ids": [[0] * 40]}))
    assert not report.sinks
    assert report.primary_layers is None
    one = sink_report(
        scope, SinkPlan(interventions=False), prompts=Dataset.from_dict({"input_ids": [[0, *range(30, 60)]]})
    )
    assert [(sink.position, sink.kind) for sink in one.sinks] == [(0, "primary")]
    paper = sink_report(
        scope, SinkPlan(interventions=False, mode="paper"), prompts=Dataset.from_dict({"input_ids": [[0, 30, 31, 32]]})
    )
    assert any("too few for a rise" in note for note in paper.notes)


def test_a_prompt_without_bos_is_said() -> None:
    spec = PlantedSpec(n_layers=3, sinks=(PlantedSink("bos", 1, 1, 300.0),))
    prompts = Dataset.from_dict({"input_ids": [list(range(30, 90))]})
    report = sink_report(scope_of(spec), SinkPlan(interventions=False), prompts=prompts)
    assert not report.sinks
    assert any("do not begin with BOS" in note for note in report.notes)


def test_overflow_is_said() -> None:
    spec = PlantedSpec(n_layers=3, sinks=(PlantedSink("bos", 1, 2, 5000.0),))
    model, tokenizer = planted.plant(spec)
    model.model.layers[1].mlp.down_proj.weight.data *= 100
    scope = load(model.to(torch.float16), tokenizer=tokenizer)
    with pytest.raises(AttnscopeError, match=r"overflow float16.*bfloat16"):
        sink_report(scope, prompts=Dataset.from_dict({"input_ids": [[0, *range(30, 60)]]}))


def test_random_writes_do_not_stand_in_for_the_planted_one() -> None:
    """Sink heads that read the write lose their rest without it, and a random vector does not give it back."""
    spec = PlantedSpec(
        n_layers=4,
        heads={(2, 0): "sink", (3, 1): "sink"},  # type: ignore[dict-item]
        sinks=(PlantedSink("bos", 1, None, 500.0),),
        sink_heads_read="direction",
    )
    _, prompts = random_sinks(2)
    report = sink_report(scope_of(spec), SinkPlan(draws=3), prompts=prompts)
    (test,) = report.writes
    assert (test.layer, test.module) == (1, "mlp")
    points = {point.factor: point for point in test.curve}
    assert points[1.0].share > 0.2
    assert points[0.0].share < points[1.0].share / 2
    assert points[0.0].lifetime == 0
    assert points[1.0].lifetime == 3
    assert len(test.control_changes) == len(test.random_positions_changes) == 3


def test_heads_are_dormant_where_they_rest() -> None:
    spec = PlantedSpec(n_layers=3, heads={(2, 1): "sink"}, sinks=(PlantedSink("bos", 1, None, 500.0),))  # type: ignore[dict-item]
    _, prompts = random_sinks(2)
    report = sink_report(scope_of(spec), SinkPlan(interventions=False), prompts=prompts)
    heads = {(one.layer, one.head): one for one in report.heads}
    resting = heads[2, 1]
    assert not isinstance(resting.dormant, Missing)
    assert resting.dormant.value > 0.9
    assert not isinstance(resting.primary_share, Missing)
    assert resting.primary_share.value > 0.9
    assert isinstance(resting.secondary_share, Missing)
    others = [one.dormant.value for key, one in heads.items() if key != (2, 1) and not isinstance(one.dormant, Missing)]
    assert max(others) < 0.5


def test_loss_leaves_out_padding() -> None:
    spec, _ = random_sinks(1)
    scope = scope_of(spec)
    rows = [[0, *range(30, 50)], [0, *range(60, 70)], [0]]
    together = next_token_loss(scope, Dataset.from_dict({"input_ids": rows}))
    alone = [next_token_loss(scope, Dataset.from_dict({"input_ids": [row]}))[0] for row in rows]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert np.isnan(together[2])
