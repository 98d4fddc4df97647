"""Every format is read as it was written, refuses what is malformed, and is made from a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from _fake_report import fake_report
from _head_files import FOLDERS, NAMES, full_run, made_up

from attnscope.analyses.head_sets import kumaraswamy_mean
from attnscope.core.errors import OutputError, ReportError, StatisticsError
from attnscope.core.head_file import HeadFile
from attnscope.reports.formats import formats
from attnscope.reports.formats._base import ExportOptions
from attnscope.reports.formats.razor import protected
from attnscope.reports.head_files import detect_format, export_heads, fit, read_head_file

ALL = ExportOptions()


def bare(file: HeadFile) -> HeadFile:
    return file.model_copy(update={"source": None})


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()} | (
        {path.name: path.read_bytes()} if path.is_file() else {}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return full_run(tmp_path_factory.mktemp("runs") / "run")


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


def test_duo_attention_from_trained_gates_is_read_as_its_own_loader_does(run, tmp_path):
    _, place = export_heads(run, "duo_attention", tmp_path / "duo")
    gates = np.loadtxt(place / "full_attention_heads.tsv", dtype=float, delimiter="\t")
    assert np.array_equal(gates, run.statistics("duo_gates")["duo_gate"])
    config = json.loads((place / "config.json").read_text())
    assert (config["sink_size"], config["recent_size"], config["lr"], config["num_steps"]) == (8, 32, 0.02, 20)
    assert config["attnscope"]["gates"] == "trained"


@pytest.mark.parametrize("budget", [0, 0.1, 0.25, 0.5, 1])
def test_duo_attention_from_a_score_with_a_budget(run, budget, tmp_path):
    options = ExportOptions(score="retrieval", budget=budget)
    _, place = export_heads(run, "duo_attention", tmp_path / "duo", options)
    gates = np.loadtxt(place / "full_attention_heads.tsv", delimiter="\t")
    assert set(np.unique(gates)) <= {0, 1}
    assert gates.sum() == round(budget * gates.size)
    heads = run.report.heads.pivot(index="layer", columns="head", values="retrieval").to_numpy()
    best = heads.reshape(8, 2, 4).max(2)
    if 0 < budget < 1:
        assert best[gates == 1].min() >= best[gates == 0].max()
    made = json.loads((place / "config.json").read_text())["attnscope"]
    assert made["tied_at_cut"] == 0
    assert (made["score"], made["reduction"], made["budget"]) == ("retrieval", "max over query heads", budget)


def test_a_budget_that_cuts_between_equal_heads_says_so(tmp_path):
    run = full_run(tmp_path / "run")
    text = json.loads((run.path / "report.json").read_text())
    for record in text["records"]:
        record["scores"]["retrieval"]["value"] = float(record["layer"] == 7)
    (run.path / "report.json").write_text(json.dumps(text))
    file, _ = export_heads(run, "duo_attention", tmp_path / "duo", ExportOptions(score="retrieval", budget=0.25))
    assert file.config["attnscope"]["tied_at_cut"] == 16 - 2 - 2
    assert file.scores().sum(1).tolist() == [2, 0, 0, 0, 0, 0, 0, 2]


def test_duo_attention_refuses_to_guess(tmp_path):
    run = full_run(tmp_path / "run", only=())
    with pytest.raises(ReportError, match=r"attnscope gates.*--score retrieval"):
        export_heads(run, "duo_attention", tmp_path / "duo")
    with pytest.raises(ReportError, match="missing"):
        export_heads(run, "duo_attention", tmp_path / "duo", ExportOptions(score="copying"))
    with pytest.raises(ReportError, match="Give --budget"):
        export_heads(run, "duo_attention", tmp_path / "duo", ExportOptions(score="entropy"))
    with pytest.raises(ReportError, match="no score of this name"):
        export_heads(run, "duo_attention", tmp_path / "duo", ExportOptions(score="magic"))
    with pytest.raises(StatisticsError, match="budget"):
        export_heads(run, "duo_attention", tmp_path / "duo", ExportOptions(score="entropy", budget=2))
    assert not (tmp_path / "duo").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("duo_attention", "retrieval_head")])
def test_a_run_that_lacks_it_says_which_command_makes_it(name, tmp_path):
    run = full_run(tmp_path / "run", only=())
    with pytest.raises(ReportError, match=r"no statistics/.*Run 'attnscope"):
        export_heads(run, name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_format_from_a_run_is_read_back(name, run, tmp_path):
    file, place = export_heads(run, name, tmp_path / "out.json")
    read = read_head_file(place)
    assert read.content == file.content
    assert read.config == file.config
    assert (read.format, read.space, read.n_layers, read.n_heads) == (name, file.space, 8, file.n_heads)
    unused = ExportOptions(score="retrieval") if name != "duo_attention" else ExportOptions(top=3)
    with pytest.raises(ReportError, match="option --"):
        export_heads(run, name, tmp_path / "other", unused)


def test_retrieval_head_as_headkv_reads_it(run, tmp_path):
    _, place = export_heads(run, "retrieval_head", tmp_path / "heads.json")
    means = np.array([np.mean(trials) for trials in json.loads(place.read_text()).values()]).reshape(8, 8)
    assert np.allclose(means, run.statistics("needle")["retrieval"].mean("prompt"))


def test_retrieval_head_leaves_unanswered_needles_out(tmp_path):
    report, stats = fake_report()
    from attnscope.core.run_directory import write_run

    needle = stats["needle"].copy(deep=True)
    needle["retrieval"][2] = np.nan
    run = write_run(tmp_path / "run", report, {"needle": needle}, {})
    file, _ = export_heads(run, "retrieval_head", tmp_path / "heads.json")
    assert {len(trials) for row in file.content.trials for trials in row} == {23}
    needle["retrieval"][:, 1, 2] = np.nan
    run = write_run(tmp_path / "run", report, {"needle": needle}, {})
    with pytest.raises(ReportError, match="layer 1, head 2"):
        export_heads(run, "retrieval_head", tmp_path / "other.json")


def test_minference_qrhead_and_fasa_from_a_run(run, tmp_path):
    data = run.statistics("patterns")
    _, place = export_heads(run, "minference", tmp_path / "m.json")
    entry = json.loads(place.read_text())[3]["5"]
    assert entry[:3] == ["vertical_and_slash", int(data.vertical_size[3, 5]), int(data.slash_size[3, 5])]
    assert entry[3] == float(data.vertical_slash_mass[3, 5])

    scores = run.statistics("qrhead").qr_score.mean("prompt").to_numpy()
    _, place = export_heads(run, "qrhead", tmp_path / "q.json")
    ranked = json.loads(place.read_text())
    assert len(ranked) == 64
    assert ranked[0][1] == scores.max()
    with pytest.raises(ReportError, match="Give --top"):
        export_heads(run, "qrhead", tmp_path / "q.yaml")
    _, place = export_heads(run, "qrhead", tmp_path / "q.yaml", ExportOptions(top=5))
    assert place.read_text().splitlines()[0] == f'attn_head_set: "{",".join(name for name, _ in ranked[:5])}"'
    assert [(h.layer, h.head) for h in read_head_file(place).content.heads] == [
        tuple(map(int, name.split("-"))) for name, _ in ranked[:5]
    ]

    _, place = export_heads(run, "fasa", tmp_path / "f.json", ExportOptions(top=2))
    chunks = json.loads(place.read_text())
    assert chunks["pairing"] == "rotate_half"
    assert np.array_equal(chunks["dominant"], run.statistics("frequency").dominant_chunk[..., :2])


def test_lychee_classes(run, tmp_path):
    file, _ = export_heads(run, "lychee", tmp_path / "l")
    grids = {name: np.array(grid) for name, grid in file.content.values.items()}
    draws = np.random.default_rng(0).random(20_000)
    sampled = (1 - (1 - draws[:, None, None]) ** (1 / grids["b"])) ** (1 / grids["a"])
    assert np.allclose(sampled.mean(0), kumaraswamy_mean(grids["a"], grids["b"]), atol=0.01)
    assert grids["full_head"][0].all()
    assert np.array_equal(grids["full_head"][1:], (kumaraswamy_mean(grids["a"], grids["b"]) > 0.5)[1:])
    assert 0 < grids["full_head"][1:].mean() < 1


def test_razor_protects_the_best_of_each_group(run, tmp_path):
    file, _ = export_heads(run, "razor", tmp_path / "r.json")
    kept = protected(file)
    data = run.statistics("razor").mean("prompt")
    groups = {x: data[f"razor_{x}"].to_numpy().reshape(8, 2, 4).max(2) for x in ("induction", "echo")}
    best = np.argsort(-groups["induction"], axis=None)[: round(0.14 * 16)]
    assert {*best, groups["echo"].argmax()} == set(np.flatnonzero(kept))
    assert file.config["sink_tokens"] == 4
    assert file.config["local_tokens"] == 256


def test_a_model_with_other_layers_is_refused(tmp_path):
    run = full_run(tmp_path / "run")
    layers = tuple(range(0, 16, 2))
    text = json.loads((run.path / "report.json").read_text())
    text["model"] |= {"n_layers": 16, "attention_layers": layers}
    (run.path / "report.json").write_text(json.dumps(text))
    from attnscope.core.run_directory import open_run

    for name in NAMES:
        with pytest.raises(ReportError, match="8 of 16 layers"):
            export_heads(open_run(run.path), name, tmp_path / "out")


def test_a_file_is_held_against_a_model():
    file = made_up("duo_attention", 4, 2, np.random.default_rng(0))
    assert fit(file, 4, 8, 2, "toy").n_heads == 2
    with pytest.raises(ReportError, match=r"4 layers of 2 KV heads.*4 layers of 4, as toy has"):
        fit(file, 4, 8, 4, "toy")
    few = made_up("qrhead", 2, 2, np.random.default_rng(0))
    few = few.model_copy(update={"n_layers": None, "n_heads": None, "content": few.content.model_copy(
        update={"heads": few.content.heads[:3]})})  # fmt: skip
    assert fit(few, 4, 8, 2, "toy").n_heads == 8
    with pytest.raises(ReportError, match="in a model of 1 layers"):
        fit(few, 1, 1, 1, "toy")
