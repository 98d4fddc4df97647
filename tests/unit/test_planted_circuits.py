"""Planted recall and reasoning heads: exactly they answer their task, and no other head changes an answer."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from datasets import concatenate_datasets
from torch import Tensor

import attnscope
from attnscope.core.errors import ModelError, TaskError
from attnscope.core.ids import HeadId
from attnscope.edits.ablate_head import AblateHead
from attnscope.engine.batches import make_batch
from attnscope.engine.edited import edited
from attnscope.testbed.planted import (
    PlantedSpec,
    circuit_heads,
    expected_labels,
    fact_neurons,
    facts,
    knock_out,
    plant,
    random_circuits,
    reasoning_prompts,
    recall_prompts,
    spec_of,
    with_sinks,
)
from attnscope.testbed.planted.vocabulary import N_VALUES

N, LENGTH = 16, 32
SUPPORT, FIRST, SECOND = HeadId(0, 1), HeadId(1, 0), HeadId(2, 2)
LOOKUPS = {SUPPORT: "previous_token", FIRST: "lookup", SECOND: "second_lookup"}
RECALL = HeadId(1, 3)
SMALL = PlantedSpec(hidden_size=288, context_length=128, heads={**LOOKUPS, RECALL: "recall"})


class Planted:
    """A planted model with prompts of both tasks in one batch."""

    def __init__(self, spec: PlantedSpec) -> None:
        self.spec = spec
        self.model, self.tokenizer = plant(spec)
        self.scope = attnscope.load(self.model, tokenizer=self.tokenizer)
        self.tasks = {"recall": recall_prompts(spec, N, LENGTH), "reasoning": reasoning_prompts(spec, N, LENGTH)}
        self.rows = concatenate_datasets(list(self.tasks.values()))
        self.answers = self.column("answer_ids")

    def column(self, name: str) -> Tensor:
        return torch.tensor([row[name] for row in self.rows]).squeeze(-1)

    def logits(self, *heads: HeadId) -> Tensor:
        """Next-token logits `[2 N, V]` with these heads ablated."""
        edits = [AblateHead(heads)] if heads else []
        batch = make_batch(self.rows, range(len(self.rows)), torch.device("cpu"))
        with edited(self.scope, edits, batch), torch.no_grad():
            return self.scope.logits(batch)[:, -1]

    def accuracy(self, logits: Tensor) -> dict[str, float]:
        right = (logits.argmax(-1) == self.answers).float()
        return {"recall": right[:N].mean().item(), "reasoning": right[N:].mean().item()}


@cache
def random_planted(seed: int) -> Planted:
    return Planted(random_circuits(seed, context_length=256))


@pytest.mark.parametrize("seed", range(8))
def test_exactly_the_planted_heads_answer(seed):
    planted = random_planted(seed)
    assert planted.accuracy(planted.logits()) == {"recall": 1.0, "reasoning": 1.0}
    circuits = circuit_heads(planted.spec)
    for task, other in (("recall", "reasoning"), ("reasoning", "recall")):
        found = planted.accuracy(planted.logits(*circuits[task]))
        assert found[task] <= 1.5 / N_VALUES
        assert found[other] == 1.0
    served = {head: sum(fact.head == head for fact in facts(planted.spec)) / 32 for head in circuits["recall"]}
    for head in planted.spec.all_heads():
        found = planted.accuracy(planted.logits(head))
        assert found["reasoning"] <= 0.2 if head in circuits["reasoning"] else found["reasoning"] == 1.0, head
        assert abs(found["recall"] - (1 - served.get(head, 0))) <= (0.1 if head in served else 0.0), head


@pytest.mark.parametrize("seed", [1])
def test_a_circuit_head_patched_from_the_corrupt_prompt_loses_the_answer(seed):
    planted = random_planted(seed)
    size, kept = planted.spec.head_dim, {}

    def hook(head, change):
        place = slice(head.head * size, (head.head + 1) * size)
        projection = planted.model.model.layers[head.layer].self_attn.o_proj
        return projection.register_forward_pre_hook(lambda _, args: change(head, place, args[0]))

    def note(head, place, z):
        kept[head] = z[..., place].clone()

    def put(head, place, z):
        z = z.clone()
        z[..., place] = kept[head]
        return (z,)

    def run(column, change, head):
        handle = hook(head, change)
        with torch.no_grad():
            logits = planted.model(input_ids=planted.column(column)).logits[:, -1]
        handle.remove()
        return planted.accuracy(logits)

    wrong = planted.column("wrong_ids")
    circuits = circuit_heads(planted.spec)
    for head in planted.spec.all_heads():
        run("corrupt_ids", note, head)
        found = run("input_ids", put, head)
        for task in ("recall", "reasoning"):
            assert (found[task] < 0.8) == (head in circuits[task]), (head, task)
    with torch.no_grad():
        corrupt = planted.model(input_ids=planted.column("corrupt_ids")).logits[:, -1]
    assert (corrupt.argmax(-1) == wrong).all()


def test_sinks_and_a_residual_sink_change_no_answer():
    spec = with_sinks(replace(random_circuits(3, context_length=256), residual_sink=(5, 20.0)), 3)
    planted = Planted(spec)
    assert planted.accuracy(planted.logits()) == {"recall": 1.0, "reasoning": 1.0}
    for task, heads in circuit_heads(spec).items():
        assert planted.accuracy(planted.logits(*heads))[task] <= 1.5 / N_VALUES


def test_a_fact_is_one_neuron():
    planted = Planted(SMALL)
    ids = planted.column("input_ids")
    asked = (ids[:, -2:] == ids[0, -2:]).all(-1)
    neurons = {(fact.entity, fact.relation): neuron for neuron, fact in fact_neurons(SMALL, RECALL.layer).items()}
    neuron = neurons[tuple(ids[0, -2:].tolist())]
    twin = copy.deepcopy(planted.model)
    twin.model.layers[RECALL.layer].mlp.down_proj.weight[:, neuron] = 0
    with torch.no_grad():
        right = twin(input_ids=ids).logits[:, -1].argmax(-1) == planted.answers
    assert torch.equal(right, ~asked)


@pytest.mark.parametrize(("head", "task"), [(RECALL, "recall"), *((head, "reasoning") for head in LOOKUPS)])
def test_the_knocked_out_twin_cannot_answer(head, task):
    planted = Planted(SMALL)
    twin = knock_out(planted.model, head)
    with torch.no_grad():
        found = planted.accuracy(twin(input_ids=planted.column("input_ids")).logits[:, -1])
    assert {name for name, share in found.items() if share == 1} == {"recall", "reasoning"} - {task}
    assert found[task] <= 1.5 / N_VALUES
    left = spec_of(twin)
    assert circuit_heads(left) == {**circuit_heads(SMALL), task: ()}
    assert not any(task in labels for labels in expected_labels(left).values())
    assert expected_labels(left)[head] == {"unclassified"}


def test_labels_name_the_circuits_and_the_head_that_prepares_one():
    labels = expected_labels(SMALL)
    assert {head: set(names) for head, names in labels.items() if names != {"unclassified"}} == {
        SUPPORT: {"previous_token", "reasoning"},
        FIRST: {"reasoning"},
        SECOND: {"reasoning"},
        RECALL: {"recall"},
    }


def test_prompts_of_both_tasks_are_alike_and_their_answers_follow():
    known = {(fact.entity, fact.relation): fact.value for fact in facts(SMALL)}
    words = SMALL.vocabulary
    tasks = recall_prompts(SMALL, 40, 33, seed=5), reasoning_prompts(SMALL, 40, 33, seed=5)
    for row in (*tasks[0], *tasks[1]):
        assert len(row["input_ids"]) == len(row["corrupt_ids"]) == 33
        assert row["answer_ids"] == row["target_ids"] != row["wrong_ids"]
        assert row["query_positions"] == [32]
    for row in tasks[0]:
        for ids, answer in (("input_ids", "answer_ids"), ("corrupt_ids", "wrong_ids")):
            assert [known[tuple(row[ids][-2:])]] == row[answer]
    for row in tasks[1]:
        assert sorted(row["input_ids"][:-1]) == sorted(row["corrupt_ids"][:-1])
        for ids, answer in (("input_ids", "answer_ids"), ("corrupt_ids", "wrong_ids")):
            tokens = row[ids][:-1]
            leads = {one: two for one, two in pairwise(tokens) if one in words.sources}
            middle = leads[row[ids][-1]]
            assert [leads[words.sources[middle - words.targets[0]]]] == row[answer]
    assert tasks[0].to_list() == recall_prompts(SMALL, 40, 33, seed=5).to_list()
    assert tasks[1].to_list() != reasoning_prompts(SMALL, 40, 33, seed=6).to_list()


def test_what_cannot_be_planted_or_asked_says_why():
    recall = {HeadId(0, 0): "recall"}
    for changes, message in (
        ({"heads": recall, "hidden_size": 192}, "hidden size.*at least 288"),
        ({"heads": recall, "vocab_size": 96}, "vocabulary.*at least 128"),
        ({"heads": {HeadId(i, 0): "recall" for i in range(5)}, "n_layers": 5}, "at most 4"),
        ({"heads": {SUPPORT: "previous_token", FIRST: "lookup"}}, "one of each"),
        ({"heads": {FIRST: "lookup", SECOND: "second_lookup"}}, "no previous-token head"),
        ({"heads": {SUPPORT: "previous_token", FIRST: "second_lookup", SECOND: "lookup"}}, "earlier layer"),
        ({"heads": {**LOOKUPS, HeadId(1, 1): "duplicate_token"}}, "share keys"),
    ):
        with pytest.raises(ModelError, match=message):
            PlantedSpec(**{"hidden_size": 288, **changes})
    with pytest.raises(TaskError, match="recall"):
        recall_prompts(replace(SMALL, heads=LOOKUPS), 1, 40)
    with pytest.raises(TaskError, match="lookup"):
        reasoning_prompts(replace(SMALL, heads=recall), 1, 40)
    for make in (recall_prompts, reasoning_prompts):
        with pytest.raises(TaskError, match="14 to 128"):
            make(SMALL, 1, 13)
        with pytest.raises(TaskError, match="at least 1"):
            make(SMALL, 0, 40)
