"""`attnscope retrieval`: a run folder, what it says, going on after Ctrl-C, export, bad input (exit code 2)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from _command import interrupted, refused, run

from attnscope.core.retrieval_run import open_retrieval_run
from attnscope.core.sink_report import Estimate

SMALL = (
    *("--lengths", "150,300", "--depths", "0.2,0.8", "--repeats", "1", "--prompts", "1", "--decode-steps", "6"),
    *("--draws", "1"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("runs") / "pocket"
    result = run("retrieval", *SMALL, "--device", "cpu", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert not out.with_name("pocket.partial").exists()
    return out, result.output


def test_a_run_holds_every_measure_of_every_head(finished: tuple[Path, str]) -> None:
    folder, said = finished
    found = open_retrieval_run(folder)
    report = found.report
    assert (report.n_needles, report.n_answered) == (4, 4)
    assert [(cell.length, cell.depth) for cell in report.cells] == [(150, 0.2), (150, 0.8), (300, 0.2), (300, 0.8)]
    assert {"L6H4", "L7H0", "L7H1"} <= set(report.ranking[:6])
    for head in report.heads:
        for name in ("retrieval", "retrieval_decoded", "qr_score", "razor_echo", "vertical_slash_mass"):
            assert isinstance(getattr(head, name), Estimate), (head.layer, head.head, name)
    needle = found.statistics("needle").retrieval
    first = next(head for head in report.heads if (head.layer, head.head) == (7, 0))
    assert first.retrieval.value == float(needle.mean("prompt").sel(layer=7, head=0))  # type: ignore[union-attr]
    assert {path.stem for path in (folder / "statistics").iterdir()} == {
        *("needle", "decoded", "qrhead", "razor", "patterns")
    }
    assert "at most" in said
    assert "heads retrieve" in said
    assert str(folder / "retrieval.html") in said.replace("\n", "")


def test_ablation_costs_everything_and_controls_nothing(finished: tuple[Path, str]) -> None:
    report = open_retrieval_run(finished[0]).report
    above = [h for h in report.heads if isinstance(h.retrieval, Estimate) and h.retrieval.value >= report.threshold]
    names = {f"L{head.layer}H{head.head}" for head in above}
    eight = [step for step in report.curve if len(step.heads) == 8]
    assert {step.mode for step in eight} == {"zero", "uniform"}
    for step in eight:
        assert names <= set(step.heads) or len(names) > 8
        assert step.accuracy.value <= 0.25
        assert isinstance(step.control, Estimate)
        assert step.control.value >= 0.75
        assert len(step.control_draws) == 1


@pytest.mark.parametrize("form", ["retrieval_head", "qrhead", "minference", "razor"])
def test_a_run_is_exported_for_decoders(finished: tuple[Path, str], form: str, tmp_path: Path) -> None:
    place = tmp_path / "heads.json"
    result = run("export", str(finished[0]), "--to", form, "--out", str(place))
    assert result.exit_code == 0, result.output
    data = json.loads(place.read_text())
    if form == "retrieval_head":
        assert list(data) == [f"{layer}-{head}" for layer in range(8) for head in range(8)]
        assert np.mean(data["7-0"]) > 0.8
    again = run("import", str(place), "--out", str(tmp_path / "again.json"))
    assert again.exit_code == 0, again.output
    assert f"format: {form}" in again.output


def test_ctrl_c_keeps_what_was_done_and_a_repeated_command_gives_the_unbroken_result(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    out, partial = tmp_path / "run", tmp_path / "run.partial"
    command = ("retrieval", *SMALL, "--device", "cpu", "--out", str(out))
    stderr = interrupted(command, lambda: (partial / "decoded.zarr").exists())
    assert "Repeat the command" in stderr
    assert not out.exists()
    made = (partial / "decoded.zarr").stat().st_mtime_ns
    refused(run("retrieval", *SMALL, "--seed", "3", "--device", "cpu", "--out", str(out)), "another plan")
    assert (partial / "decoded.zarr").stat().st_mtime_ns == made
    assert run(*command).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    unbroken = open_retrieval_run(finished[0]).report
    resumed = open_retrieval_run(out).report
    assert resumed.model_copy(update={"provenance": unbroken.provenance}) == unbroken


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("/nowhere/model",), "/nowhere/model"),
        (("--lengths", "9000"), "8192"),
        (("--lengths", "some"), "whole numbers"),
        (("--lengths", "20"), "room for"),
        (("--depths", "2"), "0 (start) to 1 (end)"),
        (("--kind", "poem"), "key_value"),
        (("--needles", "/nowhere.jsonl"), "/nowhere.jsonl"),
        (("--haystack", "/nowhere.txt"), "/nowhere.txt"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(run("retrieval", *arguments, "--device", "cpu", "--out", str(out)), says)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    refused(run("retrieval", "--device", "cpu", "--out", str(tmp_path)), "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_model_that_answers_nothing_is_told_so(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"needle": "A grey cat sat on a red mat.", "answer": "red", "question": "Seven times nine is"}\n')
    out = tmp_path / "run"
    result = run("retrieval", "--needles", str(own), *SMALL, "--device", "cpu", "--out", str(out))
    assert result.exit_code == 0, result.output
    report = open_retrieval_run(out).report
    assert (report.n_needles, report.n_answered) == (4, 0)
    assert "answered 0 of 4" in report.heads[0].retrieval.reason  # type: ignore[union-attr]
    assert "answered 0 of 4" in report.heads[0].retrieval_decoded.reason  # type: ignore[union-attr]
    assert isinstance(report.heads[0].qr_score, Estimate)
    assert (report.curve, report.ranking) == ((), ())
    assert report.stability.kind == "missing"
    assert "answered 0 of 4 needles" in " ".join(result.output.split())
