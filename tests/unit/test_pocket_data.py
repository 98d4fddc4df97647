"""The pocket model's data: the same on every machine, split for good, and known token by token."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from attnscope.core.errors import TaskError
from attnscope.core.paths import data_path
from attnscope.tasks import _world as world
from attnscope.tasks.needle import Needle
from attnscope.tasks.reasoning import Reasoning
from attnscope.tasks.recall import Recall
from attnscope.testbed.pocket import mixture
from attnscope.testbed.pocket.config import Recipe

TOKENIZER = data_path("pocket/tokenizer.json") if data_path("pocket").exists() else Path("missing")


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data_path("pocket"))


@pytest.fixture(scope="module")
def enc():
    return mixture.word_encoder(TOKENIZER)


@pytest.fixture(scope="module")
def prose(tokenizer):
    text = data_path("pocket/heldout.txt").read_text(encoding="utf-8")[:120_000]
    return np.array(world.encode(tokenizer, text), np.uint16)


def test_the_world_is_fixed_for_ever():
    assert len(world.ENTITIES) == 400
    assert len(world.FACTS) == 1600
    assert world.stable_hash("value", "x", "born") == 6504077097741140100
    assert Recall(n=3, seed=0).rows(None) == Recall(n=3, seed=0).rows(None)
    assert Reasoning(n=6, seed=4).rows(None) == Reasoning(n=6, seed=4).rows(None)
    assert Reasoning(n=6, seed=4).rows(None) != Reasoning(n=6, seed=5).rows(None)


def test_generators_need_no_torch():
    code = (
        "import sys, attnscope.tasks.recall, attnscope.tasks.reasoning, attnscope.tasks.needle as n\n"
        "import attnscope.testbed.pocket.mixture\n"
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_recall_asks_every_fact_in_the_wording_that_training_never_shows(enc):
    asked = {r["prompt"].removeprefix("Fact: ") for r in Recall(n=1600).rows(None)}
    rng, shown = random.Random(0), set()
    for _ in range(3000):
        entity, relation = rng.choice(world.FACTS)
        shown |= {
            world.fact_stem(entity, relation, w) for w in range(4) if w != world.held_out_wording(entity, relation)
        }
    assert len(asked) == 1600
    assert not asked & shown
    trained = {r["prompt"].removeprefix("Fact: ") for r in Recall(n=1600, split="train").rows(None)}
    assert not asked & trained


def test_training_documents_never_hold_a_held_out_fact(enc, tokenizer):
    rng = random.Random(3)
    asked = {r["prompt"].removeprefix("Fact: ") for r in Recall(n=1600).rows(None)}
    for _ in range(300):
        text = tokenizer.decode(mixture.facts_doc(rng, enc, 8.0)[0])
        for sentence in text.removeprefix("Fact: ").rstrip(".").split(". "):
            assert sentence.rsplit(" ", 1)[0] not in asked


def test_puzzle_combinations_do_not_cross_the_splits():
    seen = {}
    for split in ("train", "test"):
        rng = random.Random(1)
        made = [world.puzzle(rng, split) for _ in range(600)]
        seen[split] = {(p.kind, p.combination) for p in made}
    assert not seen["train"] & seen["test"]


@pytest.mark.parametrize("kind", world.PUZZLE_KINDS)
def test_puzzles_have_the_answer_that_a_solver_finds(kind):
    rng = random.Random(2)
    for _ in range(100):
        p = world.puzzle(rng, "test", kind)
        words = [s.rstrip(".").split() for s in p.statements]
        question, answer = p.questions[0]
        if kind == "transfer":
            thing = question.rstrip("?").split()[-1]
            moves = [w for w in words if w[3:4] == [thing] or (w[1] == "has" and w[-1] == thing)]
            holder = next(w[0] for w in moves if w[1] == "has")
            for w in (w for w in moves if w[1] == "gave"):
                assert w[0] == holder
                holder = w[-1]
            assert holder == answer
            assert len(moves) == p.steps + 1
        elif kind == "comparison":
            below = {w[-1] for w in words}
            assert [w[0] for w in words if w[0] not in below] == [answer]
        else:
            person = question.split()[2]
            thing = next(w[-1] for w in words if w[0] == person)
            place = next(w[-1] for w in words if w[0] == "The" and w[1] == thing)
            assert answer == f"{thing} from {place}"


@pytest.mark.parametrize("kind", ["code", "word"])
@pytest.mark.parametrize("depth", [0.0, 0.37, 1.0, None])
def test_needle_spans_are_where_they_say(tokenizer, kind, depth):
    for row in Needle(n=3, seed=2, length=700, kind=kind, depth=depth).rows(tokenizer):
        assert [row["input_ids"][i] for i in row["source_positions"]] == row["answer_ids"]
        assert len(row["input_ids"]) + len(row["answer_ids"]) == row["length"] == 700
        assert row["input_ids"].count(tokenizer.bos_token_id) == 1
        assert tokenizer.decode(row["answer_ids"]) == row["answer"]
        assert row["prompt"].count(row["answer"] + ".") >= 1
        stem = row["prompt"].rsplit(".", 1)[-1].strip()
        assert row["prompt"].endswith(stem)


def test_needles_of_the_two_splits_differ():
    rng = random.Random(0)
    seen = {
        s: {(n.key, n.template) for n in (world.needle_text(rng, s) for _ in range(400))} for s in ("train", "test")
    }
    assert not seen["train"] & seen["test"]


def test_prompts_decode_to_their_text(tokenizer):
    for row in chain(Recall(n=5).rows(tokenizer), Reasoning(n=6).rows(tokenizer)):
        assert row["input_ids"][0] == tokenizer.bos_token_id
        assert tokenizer.decode(row["input_ids"][1:]) == row["prompt"]
        whole = tokenizer(row["prompt"] + row["answer"])["input_ids"]
        assert whole == row["input_ids"] + row["answer_ids"]


def test_build_gives_a_dataset_with_the_promised_columns(tokenizer):
    common = {"input_ids", "answer_ids", "prompt", "answer"}
    assert set(Recall(n=2).build(tokenizer).column_names) == common | {"entity", "relation", "wording"}
    assert set(Reasoning(n=2).build(tokenizer).column_names) == common | {"kind", "steps"}
    assert set(Needle(n=2, length=256).build(tokenizer).column_names) == common | {
        "source_positions", "question_position", "depth", "length", "kind", "template",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recall(n=5000), "1 to 1600"),
        (lambda: Recall(split="dev"), "'train' or 'test'"),
        (lambda: Reasoning(kind="riddle"), "transfer"),
        (lambda: Reasoning(kind="comparison", steps=9), "2 to 4"),
        (lambda: Needle(depth=2.0), "0 (start) to 1 (end)"),
        (lambda: Needle(template=9), "0 to 3"),
    ],
)
def test_errors_say_what_was_expected(make, words):
    with pytest.raises(TaskError, match="expected") as error:
        make()
    assert words in str(error.value)


def test_a_haystack_that_is_too_short_is_an_error(tokenizer):
    with pytest.raises(TaskError, match="haystack"):
        Needle(n=1, length=4096, haystack="Too short.").rows(tokenizer)


def test_rows_have_bos_at_their_start_only_and_are_a_function_of_the_step(enc, prose):
    r = Recipe(tokens_per_step=8 * 1024, short=1024, long=2048)
    for length in (r.short, r.long):
        ids, weights = mixture.batch(5, 7, enc, prose, length, r)
        again, _ = mixture.batch(5, 7, enc, prose, length, r)
        other, _ = mixture.batch(5, 8, enc, prose, length, r)
        assert ids.shape == weights.shape == (r.tokens_per_step // length, length)
        assert (ids[:, 0] == 0).all()
        assert not (ids[:, 1:] == 0).any()
        assert (ids == again).all()
        assert not (ids == other).all()
        assert (weights == r.answer_weight).any()


def test_the_word_encoder_agrees_with_the_tokenizer(enc, tokenizer):
    rng = random.Random(9)
    for _ in range(50):
        text = world.puzzle_prompt(world.puzzle(rng, "train")) + " 47291, and more."
        assert enc(text) == world.encode(tokenizer, text)


def test_recipe_survives_a_round_trip():
    r = Recipe(weight_decay=0.3)
    assert Recipe.from_json(r.to_json()) == r
    assert r.scale(0.0, 0) < r.scale(0.5, 10_000) == 1.0
    assert r.scale(1.0, 10_000) == r.final_lr
