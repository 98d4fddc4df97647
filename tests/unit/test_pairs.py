"""Pair sets: equal lengths, different answers, positions on the right tokens, and errors that name the pairs."""

from __future__ import annotations

import json

import pytest
from _tokenizers import bytes_only, differing, for_pair_sets, llama3_like, whole_words

import attnscope
from attnscope.core.errors import TaskError
from attnscope.tasks import ioi, tasks
from attnscope.tasks._matched import matched
from attnscope.tasks._pairs import check_pairs
from attnscope.tasks._words import fill, token_at, usable_words
from attnscope.tasks.colored_objects import ColoredObjects
from attnscope.tasks.greater_than import GreaterThan
from attnscope.tasks.ioi import IOI, TEMPLATES
from attnscope.tasks.pairs import FIELDS, Pairs
from attnscope.tasks.reasoning_pairs import ReasoningPairs
from attnscope.tasks.recall_pairs import RecallPairs

NAMES = ("ioi", "colored_objects", "greater_than", "recall_pairs", "reasoning_pairs")
COMMON = {"input_ids", "corrupt_ids", "answer_ids", "wrong_ids", "prompt", "corrupt", "answer", "wrong"}


@pytest.fixture(scope="module")
def scope():
    return attnscope.load(device="cpu")


@pytest.fixture(scope="module")
def tokenizer(scope):
    return scope.tokenizer


@pytest.fixture(scope="module")
def gpt2():
    return for_pair_sets()


def tokens(tokenizer, row, *positions: str) -> list[str]:
    return [tokenizer.decode([row["input_ids"][row[p]]]).strip() for p in positions]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", ["pocket", "gpt2"])
def test_every_pair_set_keeps_the_contract(name, which, tokenizer, gpt2) -> None:
    used = tokenizer if which == "pocket" else gpt2
    pairs = tasks.get(name)(n=25, seed=3).build(used)
    assert set(pairs.column_names) >= COMMON
    assert len(pairs) == 25
    for row in pairs:
        assert len(row["input_ids"]) == len(row["corrupt_ids"])
        assert row["input_ids"][0] == row["corrupt_ids"][0] == used.bos_token_id
        assert row["answer_ids"][0] != row["wrong_ids"][0]
        assert used.decode(row["input_ids"][1:]) == row["prompt"]
        assert used.decode(row["corrupt_ids"][1:]) == row["corrupt"]
        assert used.decode(row["answer_ids"]) == row["answer"]
        assert used.decode(row["wrong_ids"]) == row["wrong"]
        assert row["end_position"] == len(row["input_ids"]) - 1
        assert differing(row)
        if name != "greater_than":
            whole = used(row["prompt"] + row["answer"], add_special_tokens=False)["input_ids"]
            assert [used.bos_token_id, *whole] == row["input_ids"] + row["answer_ids"]
            assert row["answer"].startswith(" ")
            assert row["wrong"].startswith(" ")


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_a_function_of_the_seed(name, tokenizer) -> None:
    make = tasks.get(name)
    assert make(n=9, seed=1).rows(tokenizer) == make(n=9, seed=1).rows(tokenizer)
    assert make(n=9, seed=1).rows(tokenizer) != make(n=9, seed=2).rows(tokenizer)
    assert set(make(n=2).rows(None)[0]) >= COMMON - {"input_ids", "corrupt_ids", "answer_ids", "wrong_ids"}
    assert "input_ids" not in make(n=2).rows(None)[0]


# ---------------------------------------------------------------- IOI
@pytest.mark.parametrize("corruption", ioi.CORRUPTIONS)
def test_ioi_positions_and_corruptions(corruption, tokenizer, gpt2) -> None:
    for used in (tokenizer, gpt2):
        pairs = IOI(n=40, seed=1, corruption=corruption).build(used)
        assert len(set(pairs["template"])) > 8
        for row in pairs:
            io, s = row["answer"].strip(), row["wrong"].strip()
            assert tokens(used, row, "io_position", "s1_position", "s2_position") == [io, s, s]
            assert row["s1_position"] < row["s2_position"]
            first = "{S1}" if row["template"] % 2 == 0 else "{IO}"
            assert min(TEMPLATES[row["template"]].index(slot) for slot in ("{S1}", "{IO}")) == TEMPLATES[
                row["template"]
            ].index(first)
            assert (row["s1_position"] < row["io_position"]) == (first == "{S1}")
            names = sorted((row["io_position"], row["s1_position"], row["s2_position"]))
            assert differing(row) == ([row["s2_position"]] if corruption == "s2" else names)
            three = [used.decode([row["corrupt_ids"][i]]).strip() for i in names]
            if corruption == "abc":
                assert len({*three, io, s}) == 5
            else:
                assert three.count(io) == 2
                assert three.count(s) == 1


def test_ioi_has_15_tokens_in_every_template_where_all_words_are_known(gpt2) -> None:
    first = {"When", "After", "While", "Once", "As", "Before", "Because", "Since"}
    assert {template.split()[0] for template in TEMPLATES} == first
    for template in TEMPLATES:
        assert len(template.replace(",", " ,").split()) == 14
    pairs = IOI(n=60).build(gpt2)
    assert set(pairs["template"]) == set(range(len(TEMPLATES)))
    assert {len(ids) for ids in pairs["input_ids"]} == {15}


def test_ioi_takes_names_that_are_single_tokens(gpt2) -> None:
    assert {row["answer"].strip() for row in IOI(n=200).rows(gpt2)} <= set(ioi.PEOPLE[:12])
    assert len({row["answer"] for row in IOI(n=200).rows(gpt2)}) == 12
    assert {row["template"] for row in IOI(n=50, templates=(2, 5)).rows(None)} == {2, 5}


def test_ioi_reference_has_three_names_and_one_length_a_template(tokenizer) -> None:
    reference = IOI(seed=4).reference(tokenizer, per_template=6)
    assert len(reference) == 6 * len(TEMPLATES)
    for template in range(len(TEMPLATES)):
        rows = [row for row in reference if row["template"] == template]
        assert len({len(row["input_ids"]) for row in rows}) == 1
        for row in rows:
            named = [word.strip(",") for word in row["prompt"].split()[1:] if word[0].isupper()]
            assert len(named) == len(set(named)) == 3
            assert row["end_position"] == len(row["input_ids"]) - 1
    lengths = {row["template"]: len(row["input_ids"]) for row in reference}
    for row in IOI(n=40).build(tokenizer):
        assert len(row["input_ids"]) == lengths[row["template"]]


# ---------------------------------------------------------------- coloured objects
def test_colored_objects_ask_for_another_thing(tokenizer, gpt2) -> None:
    for used in (tokenizer, gpt2):
        pairs = ColoredObjects(n=60, seed=2).build(used)
        assert set(pairs["template"]) == {0, 1, 2, 3}
        assert set(pairs["asked"]) == {0, 1, 2}
        for row in pairs:
            assert differing(row) == [row["asked_position"]]
            answer, wrong, thing = tokens(used, row, "answer_position", "wrong_position", "asked_position")
            other = used.decode([row["corrupt_ids"][row["asked_position"]]]).strip()
            assert (f" {answer}", f" {wrong}") == (row["answer"], row["wrong"])
            assert f"a {answer} {thing}" in row["prompt"]
            assert f"a {wrong} {other}" in row["prompt"]


# ---------------------------------------------------------------- greater-than
def test_greater_than_by_two_digits(gpt2) -> None:
    pairs = GreaterThan(n=40, seed=1).build(gpt2)
    assert set(pairs["unit"]) == {"two_digits"}
    assert len({len(ids) for ids in pairs["input_ids"]}) == 1
    for row in pairs:
        years = [int(word) for word in row["prompt"].split() if word.isdigit()]
        start, century = years
        assert start // 100 == century
        assert tokens(gpt2, row, "year_position") == [f"{start % 100:02d}"]
        assert differing(row) == [row["year_position"]]
        assert gpt2.decode([row["corrupt_ids"][row["year_position"]]]) == "01"
        assert [gpt2.decode([t]) for t in row["answer_set"]] == [f"{y:02d}" for y in range(start % 100 + 1, 100)]
        assert [gpt2.decode([t]) for t in row["wrong_set"]] == [f"{y:02d}" for y in range(start % 100 + 1)]
        assert row["answer_ids"][0] in row["answer_set"]
        assert row["wrong_ids"][0] in row["wrong_set"]
        assert int(row["wrong"]) > 1


def test_greater_than_by_decade_is_decided_by_one_digit(tokenizer) -> None:
    for row in GreaterThan(n=40, seed=1).build(tokenizer):
        assert row["unit"] == "decade"
        start, century = (int(word) for word in row["prompt"].split() if word.isdigit())
        for ids, later in ((row["answer_set"], True), (row["wrong_set"], False)):
            for token in ids:
                digit = int(tokenizer.decode([token]))
                ends = range(century * 100 + digit * 10, century * 100 + digit * 10 + 10)
                assert all((end > start) == later for end in ends)
        assert len(row["answer_set"]) + len(row["wrong_set"]) == 10
        assert differing(row) == [row["year_position"]]
        assert f"year {century}09 to" in row["corrupt"]


def test_greater_than_by_the_last_digit_and_not_at_all() -> None:
    used = llama3_like()
    for row in GreaterThan(n=20).build(used):
        assert row["unit"] == "last_digit"
        start, decade = (int(word) for word in row["prompt"].split() if word.isdigit())
        assert start // 10 == decade
        assert [used.decode([t]) for t in row["answer_set"]] == [str(d) for d in range(start % 10 + 1, 10)]
    words = [*"The lasted from the year to 17 11 war trip".split(), *(str(year) for year in range(1700, 1800))]
    with pytest.raises(TaskError, match=r"years for greater_than: found 'the year 1732' in the pieces .*'1732'"):
        GreaterThan(n=2, centuries=(17,)).build(whole_words(words))


# ---------------------------------------------------------------- errors
def test_your_own_pairs_and_errors_that_name_them(gpt2, tmp_path) -> None:
    path = tmp_path / "mine.jsonl"

    def mine(*pairs: tuple[str, str, str, str], **options):
        path.write_text("".join(json.dumps(dict(zip(FIELDS, pair, strict=True))) + "\n" for pair in pairs), "utf-8")
        return Pairs(str(path), **options).build(gpt2)

    good = (" it is John", " it is Mary", " gave", " went")
    longer = (" it is John", " it is Johnson", " gave", " went")
    same = (" it is John", " it is Mary", " Tom", " Tommy")
    made = mine(good)
    assert made["prompt"] == [" it is John"]
    assert made["end_position"] == [3]
    assert len(mine(good, longer, n=1)) == 1
    with pytest.raises(TaskError, match=r"mine.jsonl pairs: found 1 of 2 unusable: pair 1: 4 and 7 tokens \(' it is J"):
        mine(good, longer)
    with pytest.raises(TaskError, match=r"pair 0: answers ' Tom' and ' Tommy' both start with token \d+"):
        mine(same)
    with pytest.raises(TaskError, match=r"pair 2: .*; and 3 more"):
        mine(*[longer] * 6)
    with pytest.raises(TaskError, match="pair 0: the same tokens on both sides"):
        mine((" it", " it", " gave", " went"))
    with pytest.raises(TaskError, match="joins the prompt's end with its answer"):
        mine((" it ", " is ", "gave", "went"))
    with pytest.raises(TaskError, match="found no pairs"):
        mine()
    for line, found in (('{"prompt": "x"}', "line 1: found '{"), ("[", "line 1: found no JSON")):
        path.write_text(line, "utf-8")
        with pytest.raises(TaskError, match=found):
            Pairs(str(path)).build(gpt2)
    check_pairs("mine", [])


def test_words_are_kept_by_token_count(gpt2) -> None:
    assert usable_words(gpt2, ["John", "Johns", "Mary", "Marys"], 2, "names") == ["John", "Mary"]
    assert usable_words(gpt2, ["James", "Johns", "Marys", "Toms"], 2, "names") == ["Johns", "Marys", "Toms"]
    assert usable_words(gpt2, ["Johns", "Johnt", "Marys"], 2, "names") == ["Johns", "Johnt", "Marys"]
    assert usable_words(gpt2, ["Johns", "Johnt", "Marys"], 2, "names", answers=True) == ["Johns", "Marys"]
    with pytest.raises(TaskError, match=r"names for this tokenizer: found of 1 token\(s\) John; of 2 token\(s\) Marys"):
        usable_words(gpt2, ["John", "Marys"], 2, "names")
    with pytest.raises(TaskError, match="ioi names for this tokenizer"):
        IOI(n=2).build(bytes_only())


def test_a_word_level_tokenizer_without_bos_and_its_unknown_words(gpt2) -> None:
    text = " ".join(TEMPLATES).replace(",", " , ")
    words = [word for word in text.split() if "{" not in word]
    used = whole_words([*words, *ioi.PEOPLE[:7], *ioi.SITES[:3], *ioi.THINGS[:2]])
    pairs = IOI(n=30).build(used)
    assert {len(ids) for ids in pairs["input_ids"]} == {14}
    assert all(used.unk_token_id not in row["input_ids"] + row["answer_ids"] for row in pairs)
    assert {row["answer"].strip() for row in pairs} <= set(ioi.PEOPLE[:7])
    with pytest.raises(TaskError, match=r"ioi names for this tokenizer: found of 1 token\(s\) John, Mary, Tom;"):
        IOI(n=2).build(whole_words([*words, *ioi.PEOPLE[:3], *ioi.SITES, *ioi.THINGS]))


def test_token_positions_refuse_a_joined_word(gpt2) -> None:
    text, starts = fill("it is {name} that", {"name": "John"})
    assert text[starts["name"] :] == " John that"
    assert gpt2.decode([gpt2(text, add_special_tokens=False)["input_ids"][token_at(gpt2, text, starts["name"]) - 1]])
    with pytest.raises(TaskError, match="a tokenizer that joins"):
        token_at(gpt2, text, starts["name"] + 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IOI(n=0), "ioi n: found 0"),
        (lambda: IOI(corruption="xyz"), "one of abc, s2, swap"),
        (lambda: IOI(templates=(99,)), "indices from 0 to 15"),
        (lambda: IOI(templates=()), "indices from 0 to 15"),
        (lambda: IOI().reference(None, per_template=0), "at least 1"),
        (lambda: ColoredObjects(n=0), "colored_objects n"),
        (lambda: ColoredObjects(templates=(4,)), "indices from 0 to 3"),
        (lambda: GreaterThan(centuries=(7,)), "from 10 to 99"),
        (lambda: GreaterThan(n=0), "greater_than n"),
        (lambda: RecallPairs(source="wiki"), "'pocket' or 'public'"),
        (lambda: RecallPairs(split="dev"), "'train' or 'test'"),
        (lambda: RecallPairs(n=0), "recall_pairs n"),
        (lambda: RecallPairs(n=5000).rows(None), "expected at least n, which is 5000"),
        (lambda: ReasoningPairs(kind="riddle"), "transfer, comparison, lookup"),
        (lambda: ReasoningPairs(kind="comparison", steps=9), "2 to 4"),
        (lambda: ReasoningPairs(steps=3), "2 to 2"),
        (lambda: ReasoningPairs(n=0), "reasoning_pairs n"),
        (lambda: Pairs("x.jsonl", n=0), "pairs n"),
        (lambda: matched(None, RecallPairs(n=2), ReasoningPairs(n=3)), "the same n and source"),
        (lambda: matched(None, RecallPairs(n=2, length=40), ReasoningPairs(n=2)), "no length"),
        (lambda: matched(None, RecallPairs(), ReasoningPairs(), mode="words"), "'statements' or 'same_tokens'"),
    ],
)
def test_errors_say_what_was_expected(make, words) -> None:
    with pytest.raises(TaskError) as error:
        make()
    assert words in str(error.value)
