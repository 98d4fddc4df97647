"""`attnscope gates`: a run folder, a table, the cost beforehand, and what it says to bad input (exit code 2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _command import refused, run

from attnscope.core.gate_report import open_gate_run

SMALL = ("--context", "128", "--needles", "1", "--prompts", "2", "--check", "1", "--draws", "1", "--device", "cpu")


@pytest.mark.parametrize(("method", "name"), [("duo_attention", "duo_gates"), ("hardkuma", "hardkuma_gates")])
def test_a_run_holds_gates_of_the_embedded_model(method: str, name: str, tmp_path: Path) -> None:
    out = tmp_path / "gates"
    result = run("gates", "--method", method, "--steps", "2", *SMALL, "--out", out)
    assert result.exit_code == 0, result.output
    assert "8 layers × 4 KV heads" in result.stderr
    assert "2 steps of 128 tokens" in " ".join(result.stderr.split())
    assert "multiply-adds" in result.stderr
    assert "KV 3" in result.stdout
    assert str(out / "gates.json") in result.stdout.replace("\n", "")
    found = open_gate_run(out)
    assert found.report.method == method
    assert np.shape(found.report.gates) == (8, 4)
    assert found.statistics(name)["distillation_loss"].shape == (2,)
    assert (out / "manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("/nowhere/model",), "/nowhere/model"),
        (("--method", "banana"), "'banana'"),
        (("--per", "layer"), "'layer'"),
        (("--context", "100000"), "at most 8192"),
        (("--context", "60", "--needles", "5"), "room for"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    refused(run("gates", *arguments, "--device", "cpu", "--out", tmp_path / "fresh"), says)
    assert not (tmp_path / "fresh").exists()
    out = tmp_path / "held"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    refused(run("gates", "--device", "cpu", "--out", out), "mine.txt")
    assert (out / "mine.txt").read_text() == "keep"
