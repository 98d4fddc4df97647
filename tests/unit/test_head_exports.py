"""Every format is made from a run, and is read back as its readers do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from _fake_report import fake_report
from _head_files import NAMES, full_run, made_up

from attnscope.analyses.hardkuma import class_statistic
from attnscope.core.errors import ReportError, TaskError
from attnscope.reports.formats._base import ExportOptions
from attnscope.reports.formats.razor import protected
from attnscope.reports.head_files import export_heads, fit, read_head_file

ALL = ExportOptions()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return full_run(tmp_path_factory.mktemp("runs") / "run")


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
    with pytest.raises(TaskError, match="budget"):
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
    assert np.allclose(sampled.mean(0), class_statistic(grids["a"], grids["b"]), atol=0.01)
    assert grids["full_head"][0].all()
    assert np.array_equal(grids["full_head"][1:], (class_statistic(grids["a"], grids["b"]) > 0.5)[1:])
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
