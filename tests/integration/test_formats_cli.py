"""The commands export, import and compare: what they write, their exit codes, and what they leave alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from _command import refused, run
from _head_files import NAMES, full_run

from attnscope.core.head_comparison import HeadComparison
from attnscope.core.head_file import HeadFile


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return full_run(tmp_path_factory.mktemp("runs") / "run").path


@pytest.mark.parametrize("name", NAMES)
def test_export_import_export(name, made, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    done = run("export", made, "--to", name, "--out", first)
    assert done.exit_code == 0, done.output
    assert str(first) in done.output
    done = run("import", first, "--out", tmp_path / "report.json")
    assert done.exit_code == 0, done.output
    assert f"format: {name}" in done.output
    assert HeadFile.from_json((tmp_path / "report.json").read_text()).format == name
    assert run("export", tmp_path / "report.json", "--to", name, "--out", second).exit_code == 0
    assert run("import", second, "--from", name, "--out", tmp_path / "again.json").exit_code == 0
    one, two = (json.loads((tmp_path / file).read_text()) for file in ("report.json", "again.json"))
    assert one["source"]["sha256"] == two["source"]["sha256"]
    assert {**one, "source": None} == {**two, "source": None}


def test_options_of_export(made, tmp_path):
    out = tmp_path / "duo"
    done = run("export", made, "--to", "duo_attention", "--out", out, "--score", "retrieval", "--budget", 0.25)
    assert done.exit_code == 0, done.output
    assert np.loadtxt(out / "full_attention_heads.tsv", delimiter="\t").sum() == 4
    before = (out / "config.json").read_bytes()
    refused(run("export", made, "--to", "duo_attention", "--out", out, "--score", "copying"), "missing")
    refused(run("export", made, "--to", "duo_atention", "--out", out), "Did you mean duo_attention?")
    refused(run("export", made, "--to", "razor", "--out", out), "a folder", "nothing was changed")
    refused(run("export", made, "--to", "razor", "--out", tmp_path / "r", "--top", 3), "option --top")
    refused(run("export", tmp_path, "--to", "razor", "--out", tmp_path / "r"), "manifest.json")
    assert (out / "config.json").read_bytes() == before
    assert not (tmp_path / "r").exists()
    assert run("export", made, "--to", "qrhead", "--out", tmp_path / "q.yaml", "--top", 4).exit_code == 0
    assert (tmp_path / "q.yaml").read_text().count("-") >= 4


def test_import_refuses_and_leaves_what_stands(made, tmp_path):
    duo, report = tmp_path / "duo", tmp_path / "report.json"
    run("export", made, "--to", "duo_attention", "--out", duo)
    assert run("import", duo, "--out", report).exit_code == 0
    before = report.read_bytes()
    refused(run("import", duo, "--out", report, "--model", "llama-3.1-8b"), "32 layers of 8, as llama-3.1-8b has")
    refused(run("import", duo, "--from", "minference", "--out", report), "expected")
    (duo / "full_attention_heads.tsv").write_text("0.5\tx\n")
    refused(run("import", duo, "--out", report), "line 1, column 2")
    refused(run("import", tmp_path / "none", "--out", report), "no such file")
    assert report.read_bytes() == before
    (tmp_path / "mine.json").write_text('{"a": 1}')
    (duo / "full_attention_heads.tsv").write_text("0.5\n")
    refused(run("import", duo, "--out", tmp_path / "mine.json"), "nothing was changed")
    assert (tmp_path / "mine.json").read_text() == '{"a": 1}'


def test_compare(made, tmp_path):
    duo, figure, out = tmp_path / "duo", tmp_path / "figure.html", tmp_path / "comparison.json"
    run("export", made, "--to", "duo_attention", "--out", duo)
    done = run("compare", made, duo, "--top", 3, "--figure", figure, "--out", out)
    assert done.exit_code == 0, done.output
    assert "by chance within layers" in done.output
    assert "Spearman" in done.output
    found = HeadComparison.from_json(out.read_text())
    assert found.overlap.first == 3
    assert "attnscope compare" in figure.read_text()[:400]
    assert run("compare", made, duo, "--figure", figure, "--out", out).exit_code == 0  # replaced
    before = {path: path.read_bytes() for path in (figure, out)}
    small = tmp_path / "small.json"
    small.write_text('[{"0": ["stream_llm", 1, 2, 0.5]}]')
    refused(run("compare", made, small, "--figure", figure, "--out", out), "1 layers of 1 query heads")
    refused(run("compare", made, duo, "--score", "magic", "--out", out), "no score of this name")
    refused(run("compare", made, duo, "--top", 99, "--figure", figure), "0 to 16")
    refused(run("compare", made, duo, "--figure", small), "nothing was changed")
    refused(run("compare", made, duo, "--figure", figure, "--out", small), "nothing was changed")
    assert {path: path.read_bytes() for path in before} == before
    assert small.read_text().startswith("[{")


def test_two_runs_list_scores_and_labels(made):
    done = run("compare", made, made)
    assert done.exit_code == 0, done.output
    for word in ("induction", "Cohen's kappa", "p within layers"):
        assert word in done.output
