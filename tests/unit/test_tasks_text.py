"""Text and repeats: what they build and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from attnscope.core.errors import TaskError
from attnscope.tasks import tasks
from attnscope.tasks.random_tokens import RandomTokens
from attnscope.tasks.repeats import Repeats
from attnscope.tasks.text import Text


class Words:
    """A tokenizer of whitespace words; BOS is 0."""

    bos_token_id = 0
    all_special_ids = (0,)

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [1 + hash_(word) for word in text.split()]}

    def __len__(self) -> int:
        return 64


def hash_(word: str) -> int:
    return sum(map(ord, word)) % 63


def test_packs_without_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(" ".join(f"w{i}" for i in range(100)))
    rows = Text(str(path), n=3, length=11).build(Words())["input_ids"]
    assert [len(row) for row in rows] == [11, 11, 11]
    assert all(row[0] == 0 for row in rows)
    flat = [token for row in rows for token in row[1:]]
    assert flat == [1 + hash_(f"w{i}") for i in range(30)]
    assert Text(str(path), n=1, length=11, skip=1).build(Words())["input_ids"][0] == rows[1]


def test_short_text_gives_one_short_prompt(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("just a few words")
    assert [len(r) for r in Text(str(path), n=5, length=99).build(Words())["input_ids"]] == [5]


def test_reads_jsonl_and_parquet_and_documents(tmp_path: Path) -> None:
    documents = ["one two three", "four five", "six seven eight nine"]
    jsonl, parquet = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    jsonl.write_text("\n".join(json.dumps({"text": d}) for d in documents) + "\n\n")
    pd.DataFrame({"text": documents}).to_parquet(parquet)
    for path in (jsonl, parquet):
        rows = Text(str(path), length=8, packing="documents").build(Words())["input_ids"]
        assert [len(row) for row in rows] == [4, 3, 5]


def test_long_document_is_refused_with_the_remedy_or_cut_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a b c d e f g"}))
    with pytest.raises(TaskError, match=r"document 0 .*found 8 tokens.*expected at most 5.*--truncate"):
        Text(str(path), length=5, packing="documents").build(Words())
    cut = Text(str(path), length=5, packing="documents", truncate=True).build(Words())
    assert len(cut["input_ids"][0]) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "no tokens"),
        ("space.txt", b" \n\t ", "no tokens"),
        ("one.txt", b"word", "a single token"),
        ("latin.txt", "café au lait".encode("latin-1"), r"byte 0xe9 at offset 3, which is not UTF-8"),
        ("bad.jsonl", b'{"text": "a b"}\n{oops', "line 2"),
        ("column.jsonl", b'{"body": "a b"}', "expected an object with a text 'text'"),
        ("bad.parquet", b"not parquet", "unreadable"),
        ("a.docx", b"zip", r"\.docx file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message):
        Text(str(path)).build(Words())


def test_bad_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for missing in (tmp_path / "none.txt", tmp_path / "none.jsonl", tmp_path / "none.parquet"):
        with pytest.raises(TaskError, match="no such file"):
            Text(str(missing)).build(Words())
    with pytest.raises(TaskError, match="a folder"):
        Text(str(tmp_path)).build(Words())
    frame = tmp_path / "a.parquet"
    pd.DataFrame({"body": ["a b"]}).to_parquet(frame)
    with pytest.raises(TaskError, match=r"columns \['body'\]"):
        Text(str(frame)).build(Words())
    with pytest.raises(TaskError, match="without a tokenizer"):
        Text(str(frame)).build(None)
    with pytest.raises(TaskError, match="length: found 1"):
        Text(length=1)


def test_repeats_hold_copies_of_distinct_tokens() -> None:
    data = Repeats(n=4, period=20, copies=3, seed=7).build(Words())
    for ids in data["input_ids"]:
        assert ids[0] == 0
        assert ids[1:21] == ids[21:41] == ids[41:61]
        assert len(set(ids[1:21])) == 20
        assert 0 not in ids[1:]
    assert data["input_ids"] == Repeats(n=4, period=20, copies=3, seed=7).build(Words())["input_ids"]
    assert data["input_ids"] != Repeats(n=4, period=20, copies=3, seed=8).build(Words())["input_ids"]


def test_repeats_refuse() -> None:
    with pytest.raises(TaskError, match="63 ordinary tokens"):
        Repeats(period=64).build(Words())
    with pytest.raises(TaskError, match="copies: found 1"):
        Repeats(copies=1)
    with pytest.raises(TaskError, match="vocab_size"):
        Repeats().build()
    with pytest.raises(TaskError, match="repeats bos_token_id: found 9"):
        Repeats(period=4, vocab_size=9, bos_token_id=9).build()


def test_repeats_without_a_tokenizer_begin_with_the_model_s_bos() -> None:
    data = Repeats(n=3, period=8, vocab_size=9, bos_token_id=4).build()
    assert data["prefix"] == [1, 1, 1]
    for ids in data["input_ids"]:
        assert ids[0] == 4
        assert sorted(ids[1:9]) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert Repeats(n=1, period=9, vocab_size=9).build()["prefix"] == [0]


def test_random_tokens_are_uniform_and_spare_bos() -> None:
    rows = RandomTokens(n=40, length=101, vocab_size=11, bos_token_id=0).build()["input_ids"]
    assert all(row[0] == 0 and len(row) == 101 for row in rows)
    drawn = [token for row in rows for token in row[1:]]
    assert set(drawn) == set(range(1, 11))
    assert all(300 < drawn.count(token) < 500 for token in range(1, 11))
    assert len({tuple(row) for row in rows}) == 40
    assert rows == RandomTokens(n=40, length=101, vocab_size=11, bos_token_id=0).build()["input_ids"]
    assert rows != RandomTokens(n=40, length=101, seed=1, vocab_size=11, bos_token_id=0).build()["input_ids"]
    without = RandomTokens(n=1, length=500, vocab_size=3).build()["input_ids"][0]
    assert set(without) == {0, 1, 2}
    assert RandomTokens(n=1, length=5).build(Words())["input_ids"][0][0] == 0


def test_random_tokens_refuse() -> None:
    for field, value in (("n", 0), ("length", 1), ("vocab_size", 1)):
        with pytest.raises(TaskError, match=f"random_tokens {field}: found {value}"):
            RandomTokens(**{"vocab_size": 9, field: value})
    with pytest.raises(TaskError, match="neither a tokenizer nor vocab_size"):
        RandomTokens().build()
    with pytest.raises(TaskError, match=r"random_tokens bos_token_id: found 9.*below the vocabulary's 9"):
        RandomTokens(vocab_size=9, bos_token_id=9).build()


def test_every_task_has_its_file_s_name() -> None:
    assert {"text", "repeats", "recall", "reasoning", "needle", "random_tokens"} <= set(tasks.names())
    for name in tasks.names():
        assert tasks.get(name).name == name
