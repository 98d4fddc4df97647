"""The command line: what it does, and what it says to bad input (exit code 2, existing results untouched)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from _command import interrupted, refused, run
from safetensors.torch import save_file
from typer.testing import Result

from attnscope import __version__
from attnscope.core.run_directory import open_run

QUICK = ["--prompts", "2", "--context", "128", "--device", "cpu"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, planted_folder: Path, planted_text: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "planted"
    result = run("report", planted_folder, "--text", planted_text, "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    assert str(out / "report.html") in result.output
    assert "trillion multiply-adds" in result.stderr
    return out


def test_report_writes_a_run(finished: Path) -> None:
    opened = open_run(finished)
    assert opened.report.model.architecture == "LlamaForCausalLM"
    assert opened.report.provenance.implementation == "tiled"
    assert opened.html.read_text().startswith("<!doctype html>")
    assert {p.name for p in finished.iterdir()} == {
        "manifest.json",
        "report.json",
        "report.html",
        "heads.parquet",
        "heads.csv",
        "sinks.json",
        "frequency.json",
        "statistics",
    }
    assert not finished.with_name("planted.partial").exists()


def test_heads_lists_filters_and_sorts(finished: Path) -> None:
    report = open_run(finished).report
    result = run("heads", finished)
    assert result.exit_code == 0
    assert all(str(record.id) in result.output for record in report.records)
    sinks = run("heads", finished, "--label", "previous_token", "--sort", "previous_token", "--top", 1)
    shown = [str(r.id) for r in report.records if str(r.id) in sinks.output]
    assert len(shown) == 1
    assert shown[0] in map(str, report.heads_labelled("previous_token"))


def test_heads_refuses(finished: Path, tmp_path: Path) -> None:
    refused(run("heads", tmp_path / "none"), "no such folder")
    refused(run("heads", finished, "--label", "banana"), "banana", "induction")
    refused(run("heads", finished, "--sort", "banana"), "banana", "entropy")
    broken = shutil.copytree(finished, tmp_path / "broken")
    (broken / "report.json").write_text("{")
    refused(run("heads", broken), "no JSON")


def test_version_doctor_and_help() -> None:
    assert run("--version").output.strip() == f"attnscope {__version__}"
    doctor = run("doctor")
    assert doctor.exit_code == 0, doctor.output
    for word in ("torch", "cpu", "kernel tiled on cpu", "kernel triton", "pip install 'attnscope[app]'"):
        assert word in doctor.output
    assert run("--help").exit_code == 0
    assert "--install-completion" in run("--help").output


def test_doctor_says_what_a_model_needs(planted_folder: Path, tmp_path: Path) -> None:
    result = run("doctor", planted_folder, "--context", 4096)
    assert result.exit_code == 0, result.output
    assert "million" in result.output
    assert "4,096 tokens" in result.output
    refused(run("doctor", tmp_path / "none"), "none")


def test_bad_models(tmp_path: Path, planted_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    refused(run("report", tmp_path / "missing", "--out", out), "missing")
    (tmp_path / "empty").mkdir()
    refused(run("report", tmp_path / "empty", "--out", out), "config.json")
    corrupt = shutil.copytree(planted_folder, tmp_path / "corrupt")
    (corrupt / "model.safetensors").write_bytes(b"not a tensor in sight")
    refused(run("report", corrupt, "--out", out), "model.safetensors")
    short = shutil.copytree(planted_folder, tmp_path / "short")
    data = (short / "model.safetensors").read_bytes()
    (short / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(run("report", short, "--out", out), "model.safetensors")
    pickled = shutil.copytree(planted_folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(run("report", pickled, "--out", out), "safetensors")
    refused(run("report", planted_folder, "--out", out, "--device", "banana"), "banana")
    refused(run("report", planted_folder, "--out", out, "--dtype", "banana"), "banana")
    refused(run("report", planted_folder, "--out", out, "--backend", "banana"), "banana", "hf")
    refused(run("report", planted_folder, "--out", out, "--mode", "banana"), "banana", "screen")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    refused(
        run("report", planted_folder, "--out", out, "--implementation", "triton", *QUICK), "triton", "not available"
    )
    assert not out.exists()


def test_families_that_cannot_be_expressed(tmp_path: Path) -> None:
    falcon = tmp_path / "falcon"
    save_model(falcon, "FalconConfig", "FalconForCausalLM", num_attention_heads=4, hidden_size=32)
    refused(run("report", falcon, "--out", tmp_path / "out"), "falcon", "never calls transformers' attention interface")
    bert = tmp_path / "bert"
    save_model(bert, "BertConfig", "BertForMaskedLM", num_attention_heads=4, hidden_size=32, intermediate_size=64)
    refused(run("report", bert, "--out", tmp_path / "out"), "causal")
    assert not (tmp_path / "out").exists()


def save_model(folder: Path, config: str, model: str, **sizes: int) -> None:
    import transformers

    made = getattr(transformers, config)(num_hidden_layers=2, vocab_size=64, **sizes)
    built = getattr(transformers, model)(made)
    folder.mkdir()
    made.architectures = [model]
    made.save_pretrained(folder)
    state = {name: tensor.clone().contiguous() for name, tensor in built.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_bad_text(tmp_path: Path, planted_folder: Path) -> None:
    out = tmp_path / "out"

    def with_text(name: str, content: bytes, *more: str) -> Result:
        path = tmp_path / name
        path.write_bytes(content)
        return run("report", planted_folder, "--text", path, "--out", out, "--device", "cpu", *more)

    refused(with_text("empty.txt", b""), "empty.txt", "no tokens")
    refused(with_text("one.txt", b"w1"), "a single token")
    refused(with_text("latin.txt", b"caf\xe9"), "not UTF-8")
    refused(run("report", planted_folder, "--text", tmp_path / "none.txt", "--out", out), "no such file")
    long = json.dumps({"text": "w1 w2 " * 200}).encode()
    refused(with_text("long.jsonl", long, "--documents", "--context", "64"), "401 tokens", "--truncate")
    limit = json.loads((planted_folder / "config.json").read_text())["max_position_embeddings"]
    refused(with_text("a.txt", b"w1 w2", "--context", str(limit + 1)), f"--context {limit}")
    assert not out.exists()


def test_bad_outputs(tmp_path: Path, planted_folder: Path, finished: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.doc").write_text("ten years")
    refused(run("report", planted_folder, "--out", theirs), "thesis.doc")
    assert (theirs / "thesis.doc").read_text() == "ten years"
    refused(run("report", planted_folder, "--out", theirs / "thesis.doc"), "a file")
    refused(run("report", planted_folder, "--out", "/proc/attnscope/run"), "/proc")
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    refused(run("report", planted_folder, "--text", tmp_path / "none.txt", "--out", finished), "no such file")
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_ctrl_c_leaves_nothing_half_written_and_can_be_resumed(
    tmp_path: Path, planted_folder: Path, planted_text: Path
) -> None:
    out = tmp_path / "runs" / "run"
    command = [
        *("report", str(planted_folder), "--text", str(planted_text)),
        *("--out", str(out), "--prompts", "5", "--context", "1024", "--batch-tokens", "1024", "--device", "cpu"),
    ]
    stderr = interrupted(command, lambda: list(out.with_name("run.partial").glob("text.safetensors")))
    assert "Repeat the command" in stderr
    assert not out.exists()
    assert {p.name for p in out.parent.iterdir()} <= {"run.partial"}
    again = run(*command)
    assert again.exit_code == 0, again.output
    assert open_run(out).report.records
    assert {p.name for p in out.parent.iterdir()} == {"run"}


def test_plant_prints_what_it_planted(tmp_path: Path) -> None:
    result = run("testbed", "plant", tmp_path / "model", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "induction" in result.output
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert run("testbed", "plant", tmp_path / "model").exit_code == 2
