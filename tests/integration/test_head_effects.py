"""Where recall and reasoning prompts of a head report come from, when effects are missing, and how they resume."""

from __future__ import annotations

import datasets
import pytest

import attnscope
from attnscope import head_effects as effects
from attnscope.core.errors import TaskError
from attnscope.core.track import silent
from attnscope.report_plan import ReportPlan
from attnscope.tasks.recall_pairs import RecallPairs


@pytest.fixture(scope="module")
def scope():
    return attnscope.load(device="cpu")


def measured(scope, plan=None, given=None, text=None, partial=None) -> effects.HeadEffects:
    return effects.head_effects(
        scope,
        plan or ReportPlan(circuit_prompts=8),
        given or {},
        text,
        partial,
        implementation="auto",
        batch_tokens=8192,
        track=silent,
    )


def test_a_model_of_the_pocket_world_under_another_name_is_asked_about_that_world_in_the_end(scope) -> None:
    other = attnscope.load(scope.model, tokenizer=scope.tokenizer)
    assert other.info.model_id != "pocket"
    found = measured(other)
    assert {task: made.source for task, (made, _) in found.prompts.items()} == dict.fromkeys(effects.TASKS, "pocket")
    assert "The model answered 8 of 8 pocket recall prompts; only these count." in found.notes


def test_too_few_answers_are_missing_with_both_sources_named(scope) -> None:
    found = measured(scope, ReportPlan(circuit_prompts=4))
    assert found.missing["recall_effect"] == (
        "the model answered 4 of 4 pocket recall prompts, fewer than 8; "
        "the model answered 0 of 4 public recall prompts, fewer than 8"
    )
    assert not {"recall", "reasoning"} & set(found.statistics)


def test_what_is_left_out_or_impossible_says_why(scope) -> None:
    found = measured(scope, ReportPlan(circuit_prompts=0))
    assert "--circuit-prompts" in found.missing["reasoning_effect"]
    assert "no text" in found.missing["importance"]
    toy = measured(attnscope.load(backend="toy"), text=datasets.Dataset.from_dict({"input_ids": [[1, 2, 3]]}))
    assert "no tokenizer" in toy.missing["recall_effect"]
    assert "transformers model" in toy.missing["importance"]
    with pytest.raises(TaskError, match="circuit prompts"):
        ReportPlan(circuit_prompts=-1)


def test_an_unfinished_sweep_goes_on_and_own_pairs_count_where_they_are_answered(scope, tmp_path) -> None:
    pairs = RecallPairs(n=10).build(scope.tokenizer)
    wrong = datasets.Dataset.from_list([{**row, "answer_ids": row["wrong_ids"]} for row in pairs.select([0])])
    given = {"recall": datasets.concatenate_datasets([pairs.select(range(1, 10)), wrong])}
    first = measured(scope, ReportPlan(circuit_prompts=0), given, partial=tmp_path)
    assert (tmp_path / "recall.safetensors").exists()
    again = measured(scope, ReportPlan(circuit_prompts=0), given, partial=tmp_path)
    assert first.statistics["recall"].identical(again.statistics["recall"])
    assert first.prompts["recall"][0] is None
    assert len(first.prompts["recall"][1]) == first.statistics["recall"].attrs["prompts"] == 9
