"""Recall and reasoning pairs: facts and puzzles of two worlds, matched in length, and answered by the pocket model."""

from __future__ import annotations

import re

import numpy as np
import pytest
from _tokenizers import bytes_only, differing, for_pair_sets, whole_words

import attnscope
from attnscope.core.errors import TaskError
from attnscope.engine.accuracy import token_accuracy
from attnscope.tasks import _public_facts as public
from attnscope.tasks import _world as world
from attnscope.tasks._answers import with_answers
from attnscope.tasks._matched import matched
from attnscope.tasks._pairs import corrupt_prompts
from attnscope.tasks._puzzle_pairs import exchange
from attnscope.tasks.reasoning_pairs import ReasoningPairs
from attnscope.tasks.recall_pairs import RecallPairs


@pytest.fixture(scope="module")
def scope():
    return attnscope.load(device="cpu")


@pytest.fixture(scope="module")
def tokenizer(scope):
    return scope.tokenizer


def right(scope, prompts) -> np.ndarray:
    return token_accuracy(scope, with_answers(prompts)) == 1


def test_recall_pairs_are_facts_of_the_world(tokenizer) -> None:
    for row in RecallPairs(n=50, seed=1).build(tokenizer):
        for prompt, subject, value in (("prompt", "subject", "answer"), ("corrupt", "corrupt_subject", "wrong")):
            assert f" {world.fact_value(row[subject], row['relation'])}" == row[value]
            assert world.held_out_wording(row[subject], row["relation"]) == row["wording"]
            assert row[prompt] == f"Fact: {world.fact_stem(row[subject], row['relation'], row['wording'])}"
        span = row["input_ids"][row["subject_position"] : row["subject_last_position"] + 1]
        assert tokenizer.decode(span).strip() == row["subject"]
        assert all(row["subject_position"] <= i <= row["subject_last_position"] for i in differing(row))
    assert len({(r["subject"], r["relation"]) for r in RecallPairs(n=400).rows(tokenizer)}) == 400


def test_reasoning_pairs_change_only_what_they_should(tokenizer) -> None:
    for row in ReasoningPairs(n=60, seed=1).build(tokenizer):
        assert differing(row) == row["changed_positions"]
        assert len(row["changed_positions"]) == (2 if row["kind"] == "comparison" else 1)
        if row["kind"] == "comparison":
            assert exchange(row["prompt"], row["changed"], row["corrupt_changed"]) == row["corrupt"]
        else:
            (where,) = row["changed_positions"]
            assert tokenizer.decode([row["input_ids"][where]]).strip() == row["changed"]
            assert tokenizer.decode([row["corrupt_ids"][where]]).strip() == row["corrupt_changed"]


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_pocket_model_answers_both_sides_at_matched_lengths(split, scope, tokenizer) -> None:
    facts, puzzles = matched(tokenizer, RecallPairs(n=24, split=split), ReasoningPairs(n=24, split=split))
    lengths = [len(ids) for ids in facts["input_ids"]]
    assert lengths == [len(ids) for ids in puzzles["input_ids"]]
    assert len(set(lengths)) > 5
    known = {f"{world.fact_stem(e, r, w)} {world.fact_value(e, r)}" for e, r in world.FACTS for w in range(4)}
    for row in facts:
        before = row["prompt"].removeprefix("Fact:").split(".")[:-1]
        assert len(before) == row["shown"] > 0
        assert all(word not in row["prompt"] for word in (row["corrupt_subject"], row["answer"] + ".", row["wrong"]))
        assert {sentence.strip() for sentence in before} <= known
    for pairs in (facts, puzzles):
        assert right(scope, pairs).mean() >= 0.9
        assert right(scope, corrupt_prompts(pairs)).mean() >= 0.9


def test_matched_prompts_can_hold_the_same_tokens(scope, tokenizer) -> None:
    facts, puzzles = matched(tokenizer, RecallPairs(n=30), ReasoningPairs(n=30), mode="same_tokens")
    for fact, puzzle in zip(facts, puzzles, strict=True):
        assert sorted(fact["input_ids"]) == sorted(puzzle["input_ids"])
        assert tokenizer.decode(fact["input_ids"][1:]) == fact["prompt"]
        assert puzzle["prompt"].split("</s>") == fact["prompt"].split("</s>")[::-1]
        assert differing(puzzle) == puzzle["changed_positions"]
        assert not {fact["answer"].strip(), fact["wrong"].strip()} & set(re.findall(r"\w+", fact["prompt"]))
        span = fact["input_ids"][fact["subject_position"] : fact["subject_last_position"] + 1]
        assert tokenizer.decode(span).strip() == fact["subject"]
        for row in (fact, puzzle):
            assert row["end_position"] == len(row["input_ids"]) - 1
    for pairs in (facts, puzzles):
        assert right(scope, pairs).mean() >= 0.9
        assert right(scope, corrupt_prompts(pairs)).mean() >= 0.9
    words = whole_words(["Fact", "Puzzle", ":", "."])
    with pytest.raises(TaskError, match="names in puzzles for this tokenizer: found none that it knows"):
        matched(words, RecallPairs(n=2, source="public"), ReasoningPairs(n=2, source="public"), mode="same_tokens")


def test_public_facts_and_puzzles(tokenizer) -> None:
    assert len(public.FACTS) >= 120
    assert len(set(public.FACTS)) == len(public.FACTS)
    for used in (for_pair_sets(), tokenizer):
        recall, reasoning = RecallPairs(n=30, source="public"), ReasoningPairs(n=30, source="public")
        facts, puzzles = matched(used, recall, reasoning)
        assert facts["input_ids"] != puzzles["input_ids"]
        for row in facts:
            assert f" {public.RELATIONS[row['relation']].values[row['subject']]}" == row["answer"]
            assert f" {public.RELATIONS[row['relation']].values[row['corrupt_subject']]}" == row["wrong"]
    assert {row["relation"] for row in RecallPairs(n=120, source="public").rows(tokenizer)} == set(public.RELATIONS)


def test_public_puzzles_have_the_answers_that_a_solver_finds() -> None:
    for row in ReasoningPairs(n=90, seed=5, source="public").rows(None):
        for prompt, answer in ((row["prompt"], row["answer"]), (row["corrupt"], row["wrong"])):
            *statements, question = (part.strip() for part in prompt.removeprefix("Puzzle:").split("."))
            words = [statement.split() for statement in statements]
            if row["kind"] == "transfer":
                thing = question.split()[-2]
                holder = next(w[0] for w in words if w[1] == "had" and w[-1] == thing)
                for w in words:
                    if w[1] == "gave" and w[3] == thing:
                        assert w[0] == holder
                        holder = w[-1]
                found = holder
            elif row["kind"] == "comparison":
                (found,) = {w[0] for w in words} - {w[-1] for w in words}
                adjective = question.split()[-3].removesuffix("est")
                assert all(w[2].removesuffix("er") == adjective for w in words)
            else:
                thing = next(w[-1] for w in words if w[1] == "has" and w[0] == question.split()[3])
                found = next(w[-1] for w in words if w[0] == "The" and w[1] == thing)
            assert f" {found}" == answer


def test_all_puzzles_can_have_one_length(tokenizer) -> None:
    pairs = ReasoningPairs(n=12, kind="transfer", length=41).build(tokenizer)
    assert {len(ids) for ids in pairs["input_ids"]} == {41}
    assert len(set(pairs["prompt"])) == 12
    with pytest.raises(TaskError, match=r"'comparison' of 41 tokens: found in 300 draws pairs of 22, 28, 34 tokens"):
        ReasoningPairs(n=3, kind="comparison", length=41).build(tokenizer)
    with pytest.raises(TaskError, match=r"kind 'transfer': found in 300 draws pairs of no tokens; at the last, "):
        ReasoningPairs(n=3).build(bytes_only())


def test_a_length_pads_recall_with_true_statements(tokenizer) -> None:
    pairs = RecallPairs(n=20, length=64).build(tokenizer)
    assert {len(ids) for ids in pairs["input_ids"]} == {64}
    with pytest.raises(TaskError, match=r"recall_pairs length of pair \d+: found none of .* fill to 9 tokens"):
        RecallPairs(n=200, length=9).build(tokenizer)
