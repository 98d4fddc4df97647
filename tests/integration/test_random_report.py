"""`attnscope report --config … --random-weights`: what it measures, what it says, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import MethodType

import datasets
import pytest
import torch
from _command import refused, run
from transformers.models.llama.modeling_llama import LlamaMLP
from typer.testing import Result

import attnscope
from attnscope.cli_options import CONFIG_HELP, run_name
from attnscope.core.errors import DeviceError, TaskError
from attnscope.core.report import HeadReport, Measured, Missing
from attnscope.core.run_directory import open_run
from attnscope.models._source import shape_names
from attnscope.report_plan import NO_NEEDLES, ReportPlan

TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
}
NOTICE = "Random weights (seed 0): this model was never trained."
QUICK = ["--prompts", "2", "--context", "96", "--device", "cpu"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    result = run("report", "--config", tiny, "--random-weights", "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    return out, result


def test_a_configuration_alone_gives_a_whole_report(finished, tiny) -> None:
    report = open_run(finished[0]).report
    assert (report.model.model_id, report.model.weights, report.model.weights_seed) == (str(tiny), "random", 0)
    assert HeadReport.from_json(report.to_json()) == report
    sets = {item.name: item for item in report.provenance.prompt_sets}
    assert list(sets) == ["text", "short", "repeats", "echoes"]
    assert (sets["text"].n_prompts, sets["text"].max_length) == (2, 96)
    assert sets["text"].parameters["task"] == sets["short"].parameters["task"] == "random_tokens"
    assert sets["repeats"].parameters["bos_token_id"] == 1
    for record in report.records:
        assert isinstance(record.scores["entropy"], Measured)
        assert isinstance(record.scores["induction"], Measured)
        assert record.scores["retrieval"] == Missing(reason=NO_NEEDLES)
    assert "no tokenizer" in NO_NEEDLES
    assert "text and short are uniform random tokens" in report.provenance.notes[0]
    assert report.provenance.bos_policy == "every prompt begins with token 1"


def test_every_face_of_it_says_that_the_weights_are_random(finished) -> None:
    out, result = finished
    shown = " ".join(result.stdout.split())
    assert f"{NOTICE} Its labels and scores say nothing about a trained model." in shown
    assert "tiny.json, random weights (seed 0): 2 layers × 4 query heads on cpu" in " ".join(result.stderr.split())
    page = (out / "report.html").read_text()
    assert f'<p class="warning" role="note">{NOTICE}' in page
    assert "random, seed 0, never trained" in page
    assert NOTICE in " ".join(run("heads", out).stdout.split())
    raw = json.loads((out / "report.json").read_text())
    assert (raw["model"]["weights"], raw["model"]["weights_seed"]) == ("random", 0)


def test_one_long_prompt_is_one_prompt_and_the_rest_stays_small(tmp_path, tiny) -> None:
    out = tmp_path / "long"
    result = run("report", "--config", tiny, "--random-weights", "--out", out, "--prompts", 1, "--context", 1024)
    assert result.exit_code == 0, result.output
    sets = {item.name: item for item in open_run(out).report.provenance.prompt_sets}
    assert (sets["text"].n_prompts, sets["text"].n_tokens) == (1, 1024)
    assert [sets[name].max_length for name in ("short", "repeats", "echoes")] == [64, 201, 401]


def test_a_folder_s_own_weights_are_ignored_and_its_tokenizer_is_used(tmp_path, planted_folder, planted_text) -> None:
    folder, out = shutil.copytree(planted_folder, tmp_path / "model"), tmp_path / "out"
    (folder / "model.safetensors").write_bytes(b"unread")
    result = run("report", folder, "--random-weights", "--seed", 5, "--text", planted_text, "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    report = open_run(out).report
    assert (report.model.weights, report.model.weights_seed) == ("random", 5)
    assert {item.name: item.parameters["task"] for item in report.provenance.prompt_sets}["text"] == "text"
    assert "answered 0 of" in report.records[0].scores["retrieval"].reason
    assert report.provenance.notes == ()


def test_the_cost_is_said_before_any_weights_are_made(tmp_path, tiny, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceError("weights", found="no room")

    monkeypatch.setattr("attnscope.models._pretrained.random_model", fail)
    result = run("report", "--config", tiny, "--random-weights", "--out", tmp_path / "out", *QUICK)
    refused(result, "no room")
    assert "trillion multiply-adds" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_excludes_each_other_is_refused(tmp_path, tiny, planted_folder) -> None:
    out = tmp_path / "out"
    both = ["--out", out, *QUICK]
    refused(run("report", "--config", tiny, *both), "tiny.json", "--random-weights")
    refused(run("report", "--random-weights", *both), "neither a model nor a configuration", "--config")
    refused(run("report", planted_folder, "--config", tiny, "--random-weights", *both), "found both")
    refused(run("report", "--config", tmp_path / "none.json", "--random-weights", *both), "none.json", "no such file")
    refused(run("report", "--config", "llama", "--random-weights", *both), "llama-3.1-8b", ".json")
    (tmp_path / "text.json").write_text("once upon a time")
    refused(run("report", "--config", tmp_path / "text.json", "--random-weights", *both), "text.json")
    (tmp_path / "other.json").write_text("{}")
    refused(run("report", "--config", tmp_path / "other.json", "--random-weights", *both), "model_type")
    long = run("report", "--config", tiny, "--random-weights", "--out", out, "--context", 1025)
    refused(long, "made for 1024", "--context 1024")
    given = ["--text", tmp_path / "text.json", *both]
    refused(run("report", "--config", tiny, "--random-weights", *given), "without a tokenizer", "--tokenizer")
    refused(run("report", "--config", tiny, "--random-weights", "--documents", *both), "without a tokenizer")
    (tmp_path / "bos.json").write_text(json.dumps({**TINY, "bos_token_id": 128000}))
    refused(run("report", "--config", tmp_path / "bos.json", "--random-weights", *both), "128000", "vocabulary's 300")
    assert not list(tmp_path.glob("out*"))


def test_given_weights_without_a_tokenizer_need_one(tmp_path, planted_folder, planted_text) -> None:
    bare, out = tmp_path / "bare", tmp_path / "out"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(planted_folder / name, bare / name)
    refused(run("report", bare, "--text", planted_text, "--out", out, *QUICK), "without a tokenizer", "--tokenizer")
    assert not out.exists()
    result = run("report", bare, "--tokenizer", planted_folder, "--text", planted_text, "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    assert open_run(out).report.model.weights == "given"


def test_doctor_says_what_a_configuration_needs(tiny, tmp_path) -> None:
    result = run("doctor", "--config", tiny, "--context", 4096)
    assert result.exit_code == 0, result.output
    assert "0.0 million" in result.output
    assert "4,096 tokens" in result.output
    shipped = run("doctor", "--config", "llama-3.1-8b")
    assert "8030.3 million" in shipped.output
    assert "131,072 tokens" in shipped.output
    refused(run("doctor", "--config", tmp_path / "none.json"), "no such file")
    refused(run("doctor", tmp_path, "--config", tiny), "found both")


def test_out_of_memory_is_an_error_that_leaves_results_as_they_were(finished, tiny, monkeypatch) -> None:
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    forward = LlamaMLP.forward

    def fail(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] < 100:
            return forward(self, x)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 1 GiB.")

    monkeypatch.setattr(LlamaMLP, "forward", fail)
    result = run("report", "--config", tiny, "--random-weights", "--out", out, "--context", 100, "--prompts", 1)
    refused(result, "batch of 1 × 100 tokens", "model.layers.0.mlp (", "20.0 MiB", "--context")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_help_names_every_shipped_shape() -> None:
    assert all(name in CONFIG_HELP for name in shape_names())
    assert "--random-weights" in run("report", "--help").output


def test_a_run_of_random_weights_never_stands_where_the_model_s_own_would(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_name(None, None, False) == "pocket"
    assert run_name("Qwen/Qwen3-0.6B", None, False) == "Qwen3-0.6B"
    assert run_name("models/mine", None, True) == "mine-random"
    assert run_name(None, "llama-3.1-8b", True) == "llama-3.1-8b-random"
    assert run_name(None, "models/mine/config.json", True) == "mine-random"
    assert run_name(None, "shapes/new.json", True) == "new-random"
    assert run_name(".", None, False) == tmp_path.name


def test_the_toy_has_random_weights_and_reports() -> None:
    plan = ReportPlan(prompts=1, context=70, short_prompts=2, repeats=2, echoes=2, draws=1)
    report = attnscope.report(attnscope.load(backend="toy", seed=3), plan)
    assert (report.model.weights, report.model.weights_seed) == ("random", 3)
    assert report.provenance.prompt_sets[2].parameters["period"] == 63


def test_given_needles_are_used_without_a_tokenizer(tiny) -> None:
    scope = attnscope.load(config=tiny, random_weights=True, device="cpu")
    plan = ReportPlan(prompts=1, context=70, short_prompts=2, repeats=2, echoes=2, draws=1)
    asked: list[int] = []
    logits = scope.logits
    scope.logits = MethodType(lambda self, batch: asked.append(len(batch.prompts)) or logits(batch), scope)
    needles = datasets.Dataset.from_dict(
        {"input_ids": [[1, 5, 6, 7, 5]], "query_positions": [[4]], "target_ids": [[6]], "source_positions": [[2]]}
    )
    report = attnscope.report(scope, plan, prompts={"needle": needles})
    assert asked
    assert report.records[0].scores["retrieval"] != Missing(reason=NO_NEEDLES)
    with pytest.raises(TaskError, match=r"sets \['needles'\]"):
        attnscope.report(scope, plan, prompts={"needles": needles})
