"""`attnscope sinks`: a run folder, the same sinks in a report, and what it says to bad input (exit code 2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _command import interrupted, refused, run

from attnscope.core.run_directory import open_run
from attnscope.core.sink_report import ResidualEvidence
from attnscope.core.sink_run import open_sink_run
from attnscope.testbed.planted import PlantedSink, PlantedSpec, save

SHORT = ("--prompts", "2", "--context", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = PlantedSpec(n_layers=4, sinks=(PlantedSink("bos", 1, 2, 500.0),), residual_sink=(17, 20.0))
    return save(spec, tmp_path_factory.mktemp("models") / "sunk")


def test_a_run_holds_the_planted_sink(folder: Path, planted_text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("sinks", str(folder), "--text", str(planted_text), *SHORT, "--draws", "2", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert str(out / "sinks.html") in result.output.replace("\n", "")
    found = open_sink_run(out)
    sinks = found.report.sinks
    assert [(sink.position, sink.token, sink.kind) for sink in sinks] == [(0, "<bos>", "primary")] * 2
    residual = sinks[0].residual
    assert isinstance(residual, ResidualEvidence)
    assert (residual.first_layer, residual.lifetime) == (1, 2)
    assert [test.layer for test in found.report.writes] == [1]
    assert [one.dimension for one in found.report.residual_sinks.dimensions] == [17]  # type: ignore[union-attr]
    trace, used = found.statistics("trace"), found.statistics("sink_heads")
    of_sinks, others = found.report.traces
    assert of_sinks.norm == tuple(np.median(trace.residual_norm_at.values[:, :, 0], axis=0).astype(float))
    assert others.n == 2 * 63
    rest = np.concatenate(list(trace.residual_norm_at.values[:, :, 1:]), axis=1)
    assert others.norm == tuple(np.median(rest, axis=1))
    assert of_sinks.cosine == pytest.approx((1.0,) * 4)
    for head in found.report.heads:
        own = used.dormant.sel(layer=head.layer, head=head.head).values
        assert head.dormant_by_prompt == tuple(own.tolist())
        assert head.dormant.value == own.mean()  # type: ignore[union-attr]
    assert used.sink_kind.values.tolist() == ["primary", "secondary", "other"]
    assert not out.with_name("run.partial").exists()
    said = " ".join(result.output.split())
    assert "at most 7,680 tokens" in said


def test_a_report_holds_the_same_sinks_unless_told_otherwise(folder: Path, planted_text: Path, tmp_path: Path) -> None:
    text = ("--text", str(planted_text), *SHORT)
    out = tmp_path / "report"
    assert run("report", str(folder), *text, "--out", str(out)).exit_code == 0
    sinks = open_run(out).sinks
    assert [(sink.position, sink.kind) for sink in sinks.sinks] == [(0, "primary")] * 2
    assert "Who writes them" in (out / "report.html").read_text()
    assert run("report", str(folder), *text, "--no-sinks", "--out", str(out)).exit_code == 0
    assert not (out / "sinks.json").exists()
    assert "Who writes them" not in (out / "report.html").read_text()


def test_ctrl_c_keeps_what_was_done_and_a_repeated_command_gives_the_unbroken_result(
    folder: Path, planted_text: Path, tmp_path: Path
) -> None:
    out, partial = tmp_path / "runs" / "run", tmp_path / "runs" / "run.partial"
    arguments = ("sinks", str(folder), "--text", str(planted_text), *SHORT, "--draws", "20")
    command = (*arguments, "--out", str(out))
    stderr = interrupted(command, lambda: (partial / "losses.json").exists())
    assert "Repeat the command" in stderr
    assert {p.name for p in out.parent.iterdir()} == {"run.partial"}
    kept = {p.name for p in partial.iterdir()}
    assert {"trace.zarr", "writers.json", "heads.zarr", "losses.json"} <= kept
    times = {name: (partial / name).stat().st_mtime_ns for name in ("trace.zarr", "writers.json")}
    refused(run(*arguments, "--seed", "5", "--out", str(out)), "another plan")
    assert {name: (partial / name).stat().st_mtime_ns for name in times} == times
    assert run(*command).exit_code == 0
    assert {p.name for p in out.parent.iterdir()} == {"run"}
    assert run(*arguments, "--out", str(tmp_path / "unbroken")).exit_code == 0
    resumed, unbroken = open_sink_run(out).report, open_sink_run(tmp_path / "unbroken").report
    assert resumed.model_copy(update={"provenance": unbroken.provenance}) == unbroken


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("/nowhere/model",), "/nowhere/model"),
        (("--mode", "banana"), "'relative' or 'paper'"),
        (("--text", "/nowhere/text.txt"), "/nowhere/text.txt"),
        (("--context", "100000"), "100000"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    refused(run("sinks", *arguments, "--device", "cpu", "--out", str(tmp_path / "fresh")), says)
    assert not (tmp_path / "fresh").exists()
    refused(run("sinks", "--device", "cpu", "--out", str(out)), "mine.txt")
    assert (out / "mine.txt").read_text() == "keep"


def test_both_commands_share_their_options() -> None:
    report, sinks = run("report", "--help"), run("sinks", "--help")
    for option in ("--text", "--context", "--prompts", "--seed", "--revision", "--batch-tokens", "--random-weights"):
        assert option in report.output
        assert option in sinks.output
    for option in ("--no-interventions", "--draws"):
        assert option in sinks.output
