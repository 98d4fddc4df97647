"""Every format is read as it was written, and what is malformed is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from _head_files import FOLDERS, NAMES, made_up

from attnscope.core.errors import OutputError, ReportError
from attnscope.core.head_file import HeadFile
from attnscope.reports.formats import formats
from attnscope.reports.formats._base import ExportOptions
from attnscope.reports.head_files import detect_format, read_head_file

ALL = ExportOptions()


def bare(file: HeadFile) -> HeadFile:
    return file.model_copy(update={"source": None})


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()} | (
        {path.name: path.read_bytes()} if path.is_file() else {}
    )


def test_the_registry_lists_every_format():
    assert formats.names() == list(NAMES)
    assert all(formats.get(name).name == name and formats.get(name).title for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(6))
def test_written_then_read_is_identical(name, seed, tmp_path):
    rng = np.random.default_rng(seed)
    layers, heads = (int(n) for n in rng.integers(1, 7, 2))
    file = made_up(name, layers, heads, rng)
    place = tmp_path / ("folder" if name in FOLDERS else "file.json")
    form = formats.get(name)
    form.write(file, place)
    assert detect_format(place) == name
    read = form.read(place)
    assert bare(read) == file
    first = contents(place)
    form.write(read, place)  # replaces its own kind
    assert contents(place) == first
    assert form.read(place) == read
    assert HeadFile.from_json(read.to_json()) == read
    assert [p for p in tmp_path.iterdir() if p != place] == []


@pytest.mark.parametrize("name", NAMES)
def test_other_people_s_files_stay(name, tmp_path):
    form, file = formats.get(name), made_up(name, 2, 2, np.random.default_rng(0))
    place = tmp_path / "mine.json"
    place.write_text("my thesis")
    with pytest.raises(OutputError, match="nothing was changed"):
        form.write(file, place)
    assert place.read_text() == "my thesis"
    folder = tmp_path / "folder"
    form.write(file, folder) if name in FOLDERS else folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    with pytest.raises(OutputError):
        form.write(file, folder)
    assert contents(folder) == before
    other = next(n for n in NAMES if n != name)
    with pytest.raises(ReportError, match=f"--to {other}"):
        form.write(made_up(other, 2, 2, np.random.default_rng(0)), tmp_path / "x")


def test_a_failed_rename_leaves_the_old_folder(tmp_path, monkeypatch):
    form, rng = formats.get("duo_attention"), np.random.default_rng(0)
    place = form.write(made_up("duo_attention", 2, 2, rng), tmp_path / "duo")
    before, original = contents(place), Path.rename

    def refuse(self, target):
        if self.name.endswith(".new"):
            raise OSError("no rename today")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="no rename today"):
        form.write(made_up("duo_attention", 3, 2, rng), place)
    assert contents(place) == before
    assert list(tmp_path.iterdir()) == [place]


RAZOR = {"format": "razor", "echo": [[0.1, 0.2]], "induction": [[0.1, 0.2]], "protected": [[True]]}
FASA = {"format": "fasa", "pairing": "rotate_half", "n_chunks": 4, "dominant": [[[0, 1]]]}
MALFORMED = [
    ("retrieval_head", "{", "line 1, column 2"),
    ("retrieval_head", '{"0-0": [1.0],\n "0-0": [1.0]}', "key '0-0'.*twice"),
    ("retrieval_head", '{"0-1": [1.0], "0-0": [1.0]}', "key '0-1'.*'0-0' there"),
    ("retrieval_head", '{"0-0": [1.0], "0-1": [1], "1-0": [1]}', "whole layers"),
    ("retrieval_head", '{"0-0": []}', "key '0-0'"),
    ("retrieval_head", '{"0-0": [NaN]}', "key '0-0', trial 0.*finite"),
    ("retrieval_head", '{"0-0": [true]}', "key '0-0', trial 0.*a number"),
    ("retrieval_head", '{"zero": [1]}', "key 'zero'"),
    ("retrieval_head", "[" * 100_000, "no JSON"),
    ("retrieval_head", '{"999999-0": [1]}', "key '999999-0'"),
    ("minference", '[{"0": ["vertical_and_slash", 1, 2]}]', "layer 0, key '0'"),
    ("minference", '[{"0": ["diagonal", 1, 2, 0.5]}]', "layer 0, key '0'.*diagonal"),
    ("minference", '[{"0": ["stream_llm", 1, -2, 0.5]}]', "layer 0, key '0'.*-2"),
    ("minference", '[{"0": ["stream_llm", 1, 2, Infinity]}]', "layer 0, key '0', score"),
    ("minference", '[{"1": ["stream_llm", 1, 2, 0.5]}]', "layer 0, key '1'"),
    ("minference", '[{"0": ["stream_llm", 1, 2, 0.5]}, {}]', "layer 1"),
    ("qrhead", '[["0-0", 0.1], ["0-1", 0.9]]', r"entry 1 \(0-1\).*largest down"),
    ("qrhead", '[["0-0", 0.1], ["0-0", 0.1]]', r"entry 1 \(0-0\).*twice"),
    ("qrhead", '[["L0H0", 0.1]]', "entry 0.*L0H0"),
    ("qrhead", '[["0-0", "high"]]', "entry 0.*high"),
    ("razor", json.dumps({**RAZOR, "format": "other"}), "key 'format'"),
    ("razor", json.dumps({**RAZOR, "echo": [[0.1]]}), "key 'echo'"),
    ("razor", json.dumps({**RAZOR, "echo": [[0.1, None]]}), "key 'echo', layer 0, head 1"),
    ("razor", json.dumps({**RAZOR, "protected": [[1]]}), "key 'protected'"),
    ("razor", json.dumps({**RAZOR, "protected": [[True] * 3]}), "key 'protected'"),
    ("fasa", json.dumps({**FASA, "pairing": "both"}), "key 'pairing'"),
    ("fasa", json.dumps({**FASA, "dominant": [[[0, 4]]]}), "layer 0, head 0.*below 4"),
    ("fasa", json.dumps({**FASA, "dominant": [[[1, 1]]]}), "layer 0, head 0"),
    ("fasa", json.dumps({key: FASA[key] for key in ("format", "pairing", "dominant")}), "key 'n_chunks'"),
    ("fasa", "[1]", "line 1"),
]


@pytest.mark.parametrize(("name", "text", "message"), MALFORMED)
def test_malformed_json_names_the_line_or_key(name, text, message, tmp_path):
    place = tmp_path / "file.json"
    place.write_text(text)
    with pytest.raises(ReportError, match=message):
        read_head_file(place, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('attn_head_set: "1-2\nother: [', "line 2"),
        ("attn_head_set: 5", "key 'attn_head_set'"),
        ("model: x", "key 'attn_head_set'"),
        ('attn_head_set: "1-2,1-2"', "1-2 twice"),
        ('attn_head_set: "1-2,x"', "key 'attn_head_set'.*'x'"),
        ('attn_head_set: "1-2"\nmade: 2025-01-01', r"key 'config\.made"),
        ('attn_head_set: "1-2"\nlist: &x [*x]', r"key 'config\.list"),
        ("!!python/object/apply:os.system ['true']", "line 1"),
    ],
)
def test_malformed_yaml(text, message, tmp_path):
    place = tmp_path / "file.yaml"
    place.write_text(text)
    with pytest.raises(ReportError, match=message):
        read_head_file(place, "qrhead")


GOOD = '{"sink_size": 1, "recent_size": 2}'


@pytest.mark.parametrize(
    ("table", "config", "message"),
    [
        ("0.5\t0.5\n0.5\n", GOOD, "line 2.*1 columns"),
        ("0.5\t0.5\n0.5 0.5\n", GOOD, "line 2, column 1"),
        ("0.5\tnan\n", GOOD, "line 1, column 2"),
        ("\n", GOOD, "line 1.*no rows"),
        ("0.5\n", '{"sink_size": 1}', "config.json, key 'recent_size'"),
        ("0.5\n", '{"sink_size": -1, "recent_size": 2}', "key 'sink_size'"),
        ("0.5\n", '{"sink_size": 1,\n', "config.json, line 2"),
        ("0.5\n", "[]", "config.json, line 1"),
        ("0.5\n", None, "config.json: found no such file"),
    ],
)
def test_malformed_duo_attention(table, config, message, tmp_path):
    (tmp_path / "full_attention_heads.tsv").write_text(table)
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ReportError, match=message):
        read_head_file(tmp_path)
    (tmp_path / "full_attention_heads.tsv").write_bytes(b"0.5\n\xff\xfe\n")
    with pytest.raises(ReportError, match=r"line 2.*UTF-8"):
        read_head_file(tmp_path)


def test_malformed_lychee(tmp_path):
    from safetensors.numpy import save_file

    place, ones = tmp_path / "full_head.safetensors", np.ones((2, 3), np.float32)
    (tmp_path / "config.json").write_text("{}")
    cases = [
        ({"full_head": ones * 0.5}, "key 'full_head'.*0 or 1"),
        ({"full_head": ones, "a": ones[:1]}, "key 'a'.*shape"),
        ({"full_head": ones, "b": ones * 0}, "key 'b'.*above 0"),
        ({"full_head": ones, "c": ones}, "key 'c'.*unknown"),
        ({"a": ones}, "key 'full_head'.*no such"),
        ({"full_head": ones[0]}, "key 'full_head'.*shape"),
    ]
    for tensors, message in cases:
        save_file(tensors, place)
        with pytest.raises(ReportError, match=message):
            read_head_file(tmp_path)
    place.write_bytes(b"\x80\x04 a pickle?")
    with pytest.raises(ReportError, match="no safetensors"):
        read_head_file(tmp_path)


def test_a_pickle_is_never_opened(tmp_path):
    place = tmp_path / "full_head.pt"
    place.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    for path, form in ((place, "lychee"), (tmp_path, "lychee"), (place, None), (tmp_path, None)):
        with pytest.raises(ReportError, match=r"never unpickles.*\n.*\n.*safetensors"):
            read_head_file(path, form)
    assert not (tmp_path / "ran").exists()


def test_the_documented_conversion(tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file

    from attnscope.reports.formats.lychee import CONVERSION

    docs = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    assert all(line in docs for line in CONVERSION.splitlines() if line and "#" not in line)
    tensors = {"full_head": torch.eye(3), "a": torch.rand(3, 3) + 0.1, "b": torch.nn.Parameter(torch.rand(3, 3) + 0.1)}
    for name, tensor in tensors.items():
        torch.save(tensor, tmp_path / f"{name}.pt")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    exec(CONVERSION, {})
    read = read_head_file(tmp_path)
    for name, tensor in tensors.items():
        assert np.array_equal(np.array(read.content.values[name]), tensor.detach().double())
    torch.save(load_file("full_head.safetensors")["full_head"], "back.pt")
    assert torch.equal(torch.load("back.pt", weights_only=True), tensors["full_head"])


def test_what_is_no_head_file(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    for path, message in (
        (tmp_path / "none", "no such file"),
        (tmp_path / "x.json", "no format"),
        (tmp_path, "no format"),
    ):
        with pytest.raises(ReportError, match=message):
            read_head_file(path)


# from a finished run
