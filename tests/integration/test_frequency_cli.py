"""`attnscope frequency`: a run folder, its cost said first, and what it says to bad input (exit code 2)."""

from __future__ import annotations

from pathlib import Path

import pytest
from _command import refused, run

from attnscope.core.frequency_run import open_frequency_run

SHORT = ("--prompts", "1", "--queries", "2", "--context", "64", "--no-tasks", "--device", "cpu")


def test_a_run_holds_report_page_and_statistics(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("frequency", *SHORT, "--budgets", "8,16", "--chunks", "8,16", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "about 128 tokens" in " ".join(result.output.split())
    assert str(out / "frequency.html") in result.output.replace("\n", "")
    found = open_frequency_run(out)
    assert (found.report.budgets, found.report.sizes, found.report.pairing) == ((8, 16), (8, 16), "rotate_half")
    assert found.report.tasks == ("text",)
    assert found.statistics().dominant_chunk.shape == (8, 8, 32)
    assert found.statistics().attrs["rotary_dims"] == 64
    assert found.statistics("agreement").agreement.dims == ("prompt", "budget", "layer", "head", "chunk")
    assert found.statistics("compound").compound_agreement.sizes["choice"] == 7
    assert "Choosing keys" in found.html.read_text()
    assert not out.with_name("run.partial").exists()


def test_a_model_without_rope_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 99}')
    arguments = ("--config", str(config), "--random-weights", *SHORT)
    refused(run("frequency", *arguments, "--out", str(tmp_path / "run")), "learned or added positions")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--budgets", "8,x"), "numbers with commas"),
        (("--budgets", "60"), "twice the smallest budget"),
        (("--chunks", "33"), "at most 32"),
        (("--pairing", "both"), "'model' or 'adjacent'"),
        (("--context", "100000"), "100000"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(run("frequency", *SHORT, *arguments, "--out", str(out)), says)
    assert not out.exists()
