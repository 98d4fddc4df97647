"""Needles, passages: positions known by construction, for tokenizers of every kind, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import attnscope
from attnscope.core.errors import TaskError
from attnscope.tasks._needles import NeedleText, tokens_of
from attnscope.tasks.needle_grid import NeedleGrid, read_needles
from attnscope.tasks.passages import Passages


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return attnscope.load(device="cpu").tokenizer


@pytest.mark.parametrize("kind", ["code", "word", "key_value"])
@pytest.mark.parametrize("others", [0, 3])
def test_every_cell_holds_its_needle_where_it_says(tokenizer: Any, kind: Any, others: int) -> None:
    grid = NeedleGrid(lengths=(300, 500), depths=(0.0, 0.5, 1.0), repeats=2, kind=kind, others=others)
    rows = grid.build(tokenizer)
    assert [(row["length"], row["depth"]) for row in rows] == [cell for cell in grid.cells for _ in range(2)]
    for row in rows:
        ids, source, answer = row["input_ids"], row["source_positions"], row["answer_ids"]
        assert [ids[p] for p in source] == answer
        assert source == list(range(source[0], source[0] + len(answer)))
        assert len(ids) + len(answer) == row["length"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(answer).strip() == row["answer"]
        assert row["answer"] in row["prompt"]
        assert kind == "word" or row["prompt"].count(row["answer"]) == 1  # novels hold words, not codes
        assert row["others"] == others
        place = source[0] / len(ids)
        assert abs(place - row["depth"]) < 0.45
    first, last = (
        [r["source_positions"][0] for r in rows if r["depth"] == d and r["length"] == 500] for d in (0.0, 1.0)
    )
    assert max(first) < min(last)


def test_a_seed_gives_the_same_prompts_and_another_seed_others(tokenizer: Any) -> None:
    a, b, c = (NeedleGrid(lengths=(200,), depths=(0.5,), seed=s).build(tokenizer)["input_ids"] for s in (0, 0, 1))
    assert a == b
    assert a != c


def test_other_needles_have_other_keys_and_answers(tokenizer: Any) -> None:
    row = NeedleGrid(lengths=(600,), depths=(0.5,), repeats=1, others=4).build(tokenizer)[0]
    stems = ("The secret code of the", "The number to remember for the", "Whoever asks for the", "can be opened with")
    assert sum(row["prompt"].count(stem) for stem in stems) >= 6  # five needles and the question


def test_your_own_needles_and_haystack(tokenizer: Any, tmp_path: Path) -> None:
    hay, own = tmp_path / "hay.txt", tmp_path / "own.jsonl"
    hay.write_text("The cat sat on the mat and looked at the sea. " * 60)
    needle = {
        "needle": "In Rome one should eat a pear on Monday.",
        "answer": "eat a pear",
        "question": "In Rome one should",
    }
    own.write_text(json.dumps(needle) + "\n")
    grid = NeedleGrid(lengths=(200,), depths=(0.5,), repeats=1, haystack=str(hay), needles=str(own))
    row = grid.build(tokenizer)[0]
    assert tokenizer.decode(row["answer_ids"]) == " eat a pear"
    assert tokenizer.decode([row["input_ids"][p] for p in row["source_positions"]]) == " eat a pear"
    assert row["prompt"].endswith("In Rome one should")
    assert "cat sat" in row["prompt"]
    assert "eat a pear on Monday." in row["prompt"]


def joining(vocabulary: list[str], pattern: Any = None) -> PreTrainedTokenizerFast:
    """A tokenizer that reads whole words."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="?"))
    tokenizer.pre_tokenizer = pattern or pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


def test_an_answer_that_the_tokenizer_joins_with_its_neighbour_is_not_used() -> None:
    words = ["?", "code", "is", "42", "42.", "."]
    joined = tokens_of(joining(words), NeedleText(" code is", " 42", ".", " code is", "k"))
    assert joined is None
    apart = joining(words, pre_tokenizers.Whitespace())
    read = tokens_of(apart, NeedleText(" code is", " 42", ".", " code is", "k"))
    assert read is not None
    assert apart.convert_ids_to_tokens(list(read.answer)) == ["42"]


def test_a_tokenizer_that_joins_every_answer_is_refused_and_some_are_noted(tmp_path: Path) -> None:
    words = ["?", "The", "code", "is", "42", "42.", "7", ".", "sea", "looks", "grey"]
    hay, own = tmp_path / "hay.txt", tmp_path / "own.jsonl"
    hay.write_text("sea looks grey " * 100)
    bad = {"needle": "The code is 42.", "answer": "42", "question": "The code is"}
    good = {"needle": "The code is 7 .", "answer": "7", "question": "The code is"}
    own.write_text(json.dumps(bad) + "\n")
    grid = NeedleGrid(lengths=(40,), depths=(0.5,), repeats=2, haystack=str(hay), needles=str(own))
    with pytest.raises(TaskError, match="joins the answer of each of 2 needles"):
        grid.build(joining(words))
    own.write_text(f"{json.dumps(bad)}\n{json.dumps(good)}\n")
    rows, notes = grid.build_with_notes(joining(words))
    assert len(rows) == 1
    assert notes == ("1 of 2 needles were left out: the tokenizer joins their answer with a neighbour.",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"line 2.*no JSON"),
        ('{"needle": "a b", "answer": "b"}', r"line 2.*question"),
        ('{"needle": "a b b", "answer": "b", "question": "a"}', r"2 times"),
        ('{"needle": "a c", "answer": "b", "question": "a"}', r"0 times"),
        ('["a"]', r"line 2"),
    ],
)
def test_malformed_needles_are_named_by_line(tmp_path: Path, line: str, message: str) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"needle": "a b", "answer": "b", "question": "a"}\n' + line + "\n")
    with pytest.raises(TaskError, match=message):
        read_needles(own)


def test_bad_parameters_are_named(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too short.")
    (tmp_path / "empty.jsonl").write_text("\n")
    for make, message in [
        (lambda: NeedleGrid(depths=(1.5,)), "0 .start. to 1"),
        (lambda: NeedleGrid(lengths=()), "no cells"),
        (lambda: NeedleGrid(kind="poem"), "key_value"),  # type: ignore[arg-type]
        (lambda: NeedleGrid(others=-1), "0 or more"),
        (lambda: NeedleGrid(lengths=(20,)).build(tokenizer), "room for"),
        (lambda: NeedleGrid(haystack=str(tmp_path / "short.txt")).build(tokenizer), "more text"),
        (lambda: NeedleGrid(needles="/nowhere.jsonl").build(tokenizer), "no such file"),
        (lambda: NeedleGrid(needles=str(tmp_path / "empty.jsonl")).build(tokenizer), "no needles"),
        (lambda: Passages(passages=1), "at least 2"),
        (lambda: Passages(length=100), "at least 40"),
    ]:
        with pytest.raises(TaskError, match=message):
            make()


def test_passages_say_where_the_gold_one_is_and_null_questions_change_nothing_else(tokenizer: Any) -> None:
    task = Passages(n=8, passages=4, length=400)
    rows, null = task.build(tokenizer), task.null(tokenizer)
    assert [row["gold"] for row in rows] == [0, 1, 2, 3] * 2
    for row, other in zip(rows, null, strict=True):
        low, high = row["gold_span"]
        ids, asked = row["input_ids"], row["question_positions"]
        assert row["answer"] in tokenizer.decode(ids[low:high])
        assert row["answer"] not in tokenizer.decode(ids[:low] + ids[high:])
        assert asked[-1] == len(ids) - 1
        assert other["input_ids"][: asked[0]] == ids[: asked[0]]
        assert tokenizer.decode(other["input_ids"][asked[0] :]) == " N/A"
        assert other["gold_span"] == row["gold_span"]
