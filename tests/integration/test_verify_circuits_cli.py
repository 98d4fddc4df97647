"""`attnscope verify-circuits` on a narrow model of GPT-2's layers and heads."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from _command import refused, run

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))
from _gpt2_shape import save_gpt2_shape

QUICK = ["--prompts", "3", "--per-template", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2_shape(tmp_path_factory.mktemp("circuits") / "narrow")


def test_published_numbers_do_not_come_back_from_untrained_weights(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    result = run("verify-circuits", folder, "--as", "gpt2", "--out", out, *QUICK)
    assert result.exit_code == 0, result.output  # not reproduced is a result
    assert "3.56" in result.output
    assert "not reproduced" in result.output
    assert "name movers knocked out" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["greater-than.json", "ioi.json", "mib.json"]
    rows = {row["metric"]: row for row in json.loads((out / "ioi.json").read_text())["rows"]}
    assert rows["logit_difference"]["verdict"] == "not reproduced"
    edges = {row["metric"]: row for row in json.loads((out / "mib.json").read_text())["rows"]}["edges"]
    assert (edges["measured"], edges["verdict"]) == (32491, "reproduced")


def test_random_weights_run_the_mechanics_and_compare_nothing(folder: Path) -> None:
    arguments = ["--config", folder / "config.json", "--random-weights", "--tokenizer", folder, "--claims", "ioi"]
    result = run("verify-circuits", *arguments, *QUICK)
    assert result.exit_code == 0, result.output
    assert "nothing is compared" in result.output
    assert "reproduced" not in result.output


def test_a_shape_without_a_tokenizer_takes_the_embedded_one() -> None:
    result = run("verify-circuits", "--config", "gpt2", "--random-weights", "--claims", "greater-than", *QUICK)
    assert result.exit_code == 0, result.output
    assert "nothing is compared" in result.output


def test_bad_input_is_refused(tmp_path: Path, folder: Path) -> None:
    refused(run("verify-circuits", folder, "--claims", "banana"), "banana", "circuit-reuse")
    refused(run("verify-circuits", folder, "--as", "gpt9", *QUICK), "gpt9", "gpt2-medium")
    refused(run("verify-circuits", tmp_path / "none"), "none")
    theirs = tmp_path / "out" / "ioi.json"
    theirs.parent.mkdir()
    theirs.write_text("ten years")
    refused(run("verify-circuits", folder, "--out", theirs.parent, *QUICK), "ioi.json", "nothing was changed")
    refused(run("verify-circuits", folder, "--out", theirs, *QUICK), "a folder")
