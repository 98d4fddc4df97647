"""Batching, checkpoints, accuracy, and what collect refuses."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import xarray as xr

import attnscope
from attnscope.collectors._base import Fold, Seen, State
from attnscope.collectors.max_prob import MaxProb
from attnscope.core.errors import AttnscopeError, OutputError, StatisticsError, TaskError, UnknownNameError
from attnscope.edits.ablate_head import AblateHead
from attnscope.engine import checkpoint as checkpoint_module
from attnscope.engine.accuracy import token_accuracy
from attnscope.engine.batches import plan
from attnscope.engine.collect import collect
from attnscope.progress import cost
from attnscope.report_plan import ReportPlan
from attnscope.tasks._answers import with_answers, with_copies_as_answers
from attnscope.tasks.repeats import Repeats

SCOPE = attnscope.load(backend="toy")
PROMPTS = datasets.Dataset.from_dict({"input_ids": [list(range(1, 9 + i)) for i in range(6)]})


def test_plan_respects_the_budget_and_covers_all() -> None:
    lengths = [5, 30, 5, 7, 5, 100]
    groups = plan(lengths, 20)
    assert sorted(i for g in groups for i in g) == list(range(6))
    for group in groups:
        longest = max(lengths[i] for i in group)
        assert len(group) == 1 or longest * len(group) <= 20


def test_progress_counts_tokens() -> None:
    seen: list[tuple[int, int]] = []
    collect(SCOPE, PROMPTS, ["entropy"], batch_tokens=16, progress=lambda done, total: seen.append((done, total)))
    total = sum(len(row) for row in PROMPTS["input_ids"])
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_interrupted_collection_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module.Checkpoint.__init__, "__defaults__", (0.0,))
    file, names = tmp_path / "deep" / "state.safetensors", ["entropy", "received_mass", "residual_norm"]
    whole = collect(SCOPE, PROMPTS, names, batch_tokens=16)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(SCOPE, PROMPTS, names, batch_tokens=16, progress=stop, checkpoint=file)
    runs: list[int] = []
    monkeypatch.setattr(type(SCOPE), "run", counting(type(SCOPE).run, runs))
    resumed = collect(SCOPE, PROMPTS, names, batch_tokens=16, checkpoint=file)
    xr.testing.assert_identical(resumed, whole)
    assert 0 < len(runs) < 6
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def counting(run, runs: list[int]):
    def counted(self, batch):
        runs.append(len(batch.prompts))
        return run(self, batch)

    return counted


def test_a_checkpoint_of_another_collection_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    collect(SCOPE, PROMPTS, ["entropy"], checkpoint=file)
    with pytest.raises(OutputError, match="another collection"):
        collect(SCOPE, PROMPTS, ["max_prob"], checkpoint=file)
    file.write_bytes(b"garbage")
    with pytest.raises(OutputError, match="unreadable"):
        collect(SCOPE, PROMPTS, ["entropy"], checkpoint=file)


def test_collectors_see_the_edited_model() -> None:
    edited = collect(SCOPE, PROMPTS, ["residual_norm"], edits=[AblateHead(tuple(SCOPE.info.heads))])
    whole = collect(SCOPE, PROMPTS, ["residual_norm"])
    np.testing.assert_allclose(
        edited.residual_norm_others.sel(site="block_input", block=0),
        edited.residual_norm_others.sel(site="block_output", block=0),
    )
    assert not np.allclose(whole.residual_norm_others, edited.residual_norm_others)


def test_collect_records_what_ran() -> None:
    assert collect(SCOPE, PROMPTS, ["entropy"]).attrs["implementation"] == "tiled"
    assert collect(SCOPE, PROMPTS, ["entropy"], implementation="reference").attrs["implementation"] == "reference"


@pytest.mark.parametrize(
    ("prompts", "names", "error", "message"),
    [
        ({"input_ids": []}, ["entropy"], TaskError, "no prompts"),
        ({"text": ["a"]}, ["entropy"], TaskError, "expected a column 'input_ids'"),
        ({"input_ids": [[1], []]}, ["entropy"], TaskError, "prompt 1: found no tokens"),
        ({"input_ids": [[1]]}, [], StatisticsError, "no collectors"),
        ({"input_ids": [[1]]}, ["entropi"], UnknownNameError, "Did you mean entropy"),
        ({"input_ids": [[1]]}, ["entropy", "entropy"], StatisticsError, "both give it"),
    ],
)
def test_collect_refuses(prompts: dict, names: list[str], error: type[AttnscopeError], message: str) -> None:
    with pytest.raises(error, match=message):
        collect(SCOPE, datasets.Dataset.from_dict(prompts), names)


def test_prompts_beyond_the_context_are_refused() -> None:
    class Short:
        info = SCOPE.info.model_copy(update={"context_length": 4})

    with pytest.raises(TaskError, match="found 13 tokens; expected at most the model's context of 4"):
        collect(Short(), PROMPTS, ["entropy"])  # type: ignore[arg-type]


def test_accuracy_counts_greedy_hits() -> None:
    ids = [5, 9, 2, 7]
    from attnscope.engine.batches import make_batch

    one = datasets.Dataset.from_dict({"input_ids": [ids]})
    with torch.no_grad():
        greedy = SCOPE.logits(make_batch(one, [0], "cpu")).argmax(-1)[0].tolist()
    prompts = datasets.Dataset.from_dict(
        {
            "input_ids": [ids, ids],
            "query_positions": [[1, 3], [1, 3]],
            "target_ids": [[greedy[1], greedy[3]], [greedy[1], greedy[3] + 1]],
        }
    )
    assert token_accuracy(SCOPE, prompts).tolist() == [1.0, 0.5]


def test_teacher_forcing() -> None:
    forced = with_answers(datasets.Dataset.from_dict({"input_ids": [[1, 2, 3]], "answer_ids": [[4, 5, 6]]}))[0]
    assert forced["input_ids"] == [1, 2, 3, 4, 5]
    assert forced["query_positions"] == [2, 3, 4]
    assert forced["target_ids"] == [4, 5, 6]
    with pytest.raises(TaskError, match="empty answer"):
        with_answers(datasets.Dataset.from_dict({"input_ids": [[1]], "answer_ids": [[]]}))
    with pytest.raises(TaskError, match="answer_ids"):
        with_answers(PROMPTS)
    copies = with_copies_as_answers(Repeats(n=1, period=5, vocab_size=30).build())[0]
    for query, target in zip(copies["query_positions"], copies["target_ids"], strict=True):
        assert copies["input_ids"][query - 5] == copies["input_ids"][query]
        assert copies["input_ids"][query - 4] == target


def test_a_fold_that_yields_twice_is_named() -> None:
    class Twice(MaxProb):
        def fold(self, state: State, seen: Seen) -> Fold:
            yield (torch.ones(1),)
            yield (torch.ones(1),)

    with pytest.raises(StatisticsError, match="fold of max_prob: found a second yield"):
        collect(SCOPE, PROMPTS, [Twice()])


def test_a_screen_is_announced_as_less_work() -> None:
    exact, screen = (cost(SCOPE.info, ReportPlan(context=64, mode=mode, sinks=False)) for mode in ("exact", "screen"))
    assert screen[0] == exact[0]
    assert screen[1] < exact[1]
