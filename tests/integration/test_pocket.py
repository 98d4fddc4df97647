"""The embedded model: its report agrees with a dense eager computation, and its labels with ablation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import attnscope
from attnscope.core.ids import HeadId
from attnscope.core.names import SCORES
from attnscope.core.report import Measured
from attnscope.core.run_directory import open_run
from attnscope.report_plan import ReportPlan, sections
from attnscope.tasks.repeats import Repeats
from attnscope.tasks.text import Text
from attnscope.workflow import report


@pytest.fixture(scope="module")
def scope():
    return attnscope.load(device="cpu")


@pytest.fixture(scope="module")
def run(scope, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("runs") / "pocket"
    report(scope, out=out)
    return open_run(out)


@pytest.fixture(scope="module")
def eager(scope):
    """Dense attention weights by transformers itself: prompt → `[L, H, T, T]`."""
    model = scope.model

    def weights(ids: list[int]) -> torch.Tensor:
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                return torch.cat(model(torch.tensor([ids]), output_attentions=True).attentions).double()
        finally:
            model.set_attn_implementation(before)

    return weights


def reported(run, score: str) -> np.ndarray:
    info = run.report.model
    values = [run.report[HeadId(layer, head)].scores[score].value for layer, head in info.heads]
    return np.array(values).reshape(len(info.attention_layers), info.n_heads)


def test_pattern_scores_agree_with_eager(run, eager, scope) -> None:
    prompts = Repeats(n=16, period=100).build(scope.tokenizer)["input_ids"]
    i, j = torch.arange(101, 201), torch.arange(1, 201)
    dense = {"induction": [], "duplicate_token": [], "previous_token": []}
    for ids in prompts:
        a = eager(ids)
        dense["induction"].append(a[..., i, i - 99].mean(-1))
        dense["duplicate_token"].append(a[..., i, i - 100].mean(-1))
        dense["previous_token"].append(a[..., j, j - 1].mean(-1))
    for score, rows in dense.items():
        np.testing.assert_allclose(reported(run, score), torch.stack(rows).mean(0).numpy(), atol=1e-4)


def test_sink_scores_agree_with_eager(run, eager, scope) -> None:
    short = Text(n=100, length=64).build(scope.tokenizer)["input_ids"]
    first = torch.stack([eager(ids)[..., 0].mean(-1) for ids in short])
    np.testing.assert_allclose(reported(run, "sink_rate"), 100 * (first > 0.3).double().mean(0).numpy(), atol=1.01)
    rate = run.report.sink_rate[64]
    assert rate.value == pytest.approx(100 * (first > 0.3).double().mean().item(), abs=0.1)
    assert rate.value >= 55
    long = Text(n=16, length=512).build(scope.tokenizer)["input_ids"]
    first = torch.stack([eager(ids)[..., 0].mean(-1) for ids in long])
    np.testing.assert_allclose(reported(run, "first_token_mass"), first.mean(0).numpy(), atol=1e-4)


def test_heads_are_what_the_card_says(run) -> None:
    made = run.report
    assert sum(made[h].scores["induction"].value >= 0.9 for h in made.heads_labelled("induction")) >= 2
    assert max(made[h].scores["previous_token"].value for h in made.heads_labelled("previous_token")) >= 0.9
    assert sum(made[h].scores["retrieval"].value >= 0.5 for h in made.heads_labelled("retrieval")) >= 2
    assert len(made.heads_labelled("sink")) >= 10
    assert made.sinks[0].position == 0
    assert made.sinks[0].token == "<s>"
    assert made.outlier_dimensions[0].ratio >= 10
    stats = run.statistics("text")
    norms = stats.residual_norm_first.sel(site="block_output").mean("prompt")
    others = stats.residual_norm_others.sel(site="block_output").mean("prompt")
    growth = np.diff(norms.values, prepend=0)
    assert int(growth.argmax()) == 1, "block 1 writes the primary sink"
    assert ((norms / others).values[1:] > 3).all()


def test_ablating_induction_heads_removes_copying_and_random_heads_do_not(run) -> None:
    check = next(c for c in run.report.causal_checks if c.label == "induction")
    assert check.baseline.value > 0.95
    assert check.ablated.value < 0.1
    assert check.random_control.value > 0.9
    assert check.n_random_draws == 10


def test_every_score_is_measured_or_says_why_not(run) -> None:
    for record in run.report.records:
        assert set(record.scores) == set(SCORES)
        for name, evidence in record.scores.items():
            if isinstance(evidence, Measured):
                assert np.isfinite(evidence.value), name
                assert evidence.n >= 1
            else:
                assert evidence.reason


def test_single_heads_cost_answers_to_pocket_facts_and_puzzles(run) -> None:
    made = run.report
    for task in ("recall", "reasoning"):
        heads = made.heads_labelled(task)
        assert HeadId(0, 0) in heads
        assert all(made[head].scores[f"{task}_effect"].interval.low > 0 for head in heads)
    sets = {item.name: item for item in made.provenance.prompt_sets}
    assert sets["recall"].parameters["source"] == sets["reasoning"].parameters["source"] == "pocket"
    assert min(sets[task].n_prompts for task in ("recall", "reasoning")) >= 20
    assert any("24 pocket recall prompts" in note for note in made.provenance.notes)
    assert made.provenance.implementation == "tiled"
    importance = reported(run, "importance")
    assert importance.argmax() == 0
    assert (importance > 0).all()
    assert (abs(reported(run, "copying")) <= 1).all()


def test_the_model_is_left_as_it_was(scope) -> None:
    assert scope.model.config._attn_implementation != "eager"
    assert not scope.model.training


def test_plans_fit_the_model() -> None:
    info = attnscope.load(backend="toy").info.model_copy(update={"context_length": 120})
    made = sections(ReportPlan(), info)
    assert [part.name for part in made] == ["text", "short", "repeats", "echoes", "needle"]
    for part in made:
        if hasattr(part.task, "length"):
            assert part.task.length <= 120
        else:
            assert part.task.period * part.task.copies + 1 <= 120
    with pytest.raises(attnscope.AttnscopeError, match="--context 120 or less"):
        sections(ReportPlan(context=121), info)


def test_no_results_are_shipped_with_unpickling() -> None:
    root = Path(attnscope.__file__).parents[1]
    for folder in ("attnscope", "kernels", "apps"):
        for file in (root / folder).rglob("*.py"):
            text = file.read_text()
            assert "torch.load(" not in text, file
            assert "import pickle" not in text, file
