"""Runs of a circuit report and results of an ablation: written and read back, honest about what they find."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from _fake_circuit_report import HEADS, LAYERS, PLANTED, fake_circuit_report
from _fake_report import fake_info, fake_provenance
from _fake_retrieval_report import fake_retrieval_report

from attnscope.core.ablation_report import AblationResult, open_ablation, write_ablation
from attnscope.core.any_run import open_any_run
from attnscope.core.circuit_report import CircuitReport
from attnscope.core.circuit_run import circuit_table, open_circuit_run, write_circuit_run
from attnscope.core.errors import OutputError, ReportError, StatisticsError, UnknownHeadError, UnknownNameError
from attnscope.core.retrieval_run import open_retrieval_run, write_retrieval_run
from attnscope.core.units import Unit, units_of
from attnscope.reports.ablation import ablated_metric

REPORT = fake_circuit_report()
STATISTICS = {"effects": xr.Dataset({"effect": (("layer",), np.arange(3.0))})}


def test_write_then_open(tmp_path: Path) -> None:
    run = write_circuit_run(tmp_path / "deep" / "circuits", REPORT, STATISTICS, lambda: "<p>hi</p>")
    opened = open_circuit_run(run.path)
    assert opened.report == REPORT
    assert open_any_run(run.path).report == REPORT
    assert opened.html.read_text() == "<p>hi</p>"
    xr.testing.assert_equal(opened.statistics("effects"), STATISTICS["effects"])
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("attnscope-circuits", 1)
    assert {"circuits.json", "circuits.html", "circuits.parquet"} <= set(manifest["files"])


@pytest.mark.parametrize("kind", ["full", "screened", "bare"])
def test_json_reads_back_the_same(kind: str) -> None:
    report = fake_circuit_report(kind)
    assert CircuitReport.from_json(report.to_json()) == report


def test_the_table_has_one_row_a_unit_and_task_and_no_zero_for_what_is_missing(tmp_path: Path) -> None:
    run = write_circuit_run(tmp_path / "run", fake_circuit_report("screened"), {}, "")
    table = pd.read_parquet(run.path / "circuits.parquet")
    assert len(table) == 2 * LAYERS * HEADS
    assert int(table.effect.notna().sum()) == 20
    assert table.screened.notna().all()
    row = table[(table.unit == "L0H1") & (table.task == "recall")].iloc[0]
    for name in ("effect", "low", "high", "n", "p", "q"):
        assert pd.isna(row[name]), name
    best = table[(table.unit == "L2H5") & (table.task == "recall")].iloc[0]
    assert best.effect == pytest.approx(PLANTED["recall"][2, 5], abs=0.15)
    assert best.low < best.effect < best.high
    assert (best.n, best.layer, best["index"], best.module) == (60, 2, 5, "head")


def test_the_table_names_the_circuits_of_a_unit() -> None:
    table = circuit_table(REPORT).set_index(["level", "unit", "task"])
    assert table.loc[("head", "L2H5", "recall")].circuits == "recall"
    assert table.loc[("layer", "mlp 2", "reasoning")].circuits == ""
    empty = circuit_table(REPORT.model_copy(update={"levels": ()}))
    assert list(empty.columns) == list(circuit_table(REPORT).columns)
    assert len(empty) == 0


def test_other_runs_and_files_are_left_alone(tmp_path: Path) -> None:
    write_circuit_run(tmp_path / "circuits", REPORT, STATISTICS, "first")
    write_circuit_run(tmp_path / "circuits", REPORT, {}, "second")
    assert open_circuit_run(tmp_path / "circuits").html.read_text() == "second"
    (tmp_path / "circuits" / "thesis.doc").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.doc"):
        write_circuit_run(tmp_path / "circuits", REPORT, {}, "third")
    write_retrieval_run(tmp_path / "retrieval", fake_retrieval_report(), {}, "")
    with pytest.raises(OutputError, match="did not write"):
        write_circuit_run(tmp_path / "retrieval", REPORT, {}, "")
    with pytest.raises(ReportError, match=r"another format.*attnscope circuit"):
        open_circuit_run(tmp_path / "retrieval")
    with pytest.raises(ReportError, match="another format"):
        open_retrieval_run(tmp_path / "circuits")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.json", '{"format": "attnscope-circuits", "version": 99}', "Upgrade attnscope"),
        ("circuits.json", "{", "no JSON"),
        ("circuits.json", '{"schema_version": 99}', "Upgrade attnscope"),
        ("circuits.json", '{"schema_version": 1}', "at model"),
        ("circuits.json", "[]", "a circuit report"),
    ],
)
def test_corrupt_and_newer_runs(tmp_path: Path, name: str, content: str, message: str) -> None:
    run = write_circuit_run(tmp_path / "run", REPORT, {}, "")
    (run.path / name).write_text(content)
    with pytest.raises(ReportError, match=message):
        _ = open_circuit_run(run.path).report


def test_units_have_names_that_read_back() -> None:
    info = fake_info(3, 2, 1)
    for level, shape in (("head", (3, 2)), ("layer", (3, 2)), ("neuron", (3, 4))):
        units = units_of(info, level, shape)
        assert len(units) == np.prod(shape)
        assert [Unit.parse(str(unit)) for unit in units] == units
        assert {unit.level for unit in units} == {level}
    assert [str(unit) for unit in units_of(info, "layer", (3, 2))][:3] == ["attention 0", "mlp 0", "attention 1"]
    with pytest.raises(UnknownHeadError):
        Unit.parse("mlp x")
    with pytest.raises(StatisticsError, match="shape"):
        units_of(info, "head", (2, 3))
    with pytest.raises(UnknownNameError, match="one of head, layer, neuron"):
        units_of(info, "expert", (3, 2))


def ablation() -> AblationResult:
    before, after = np.repeat([1.0, 0.0], [18, 2]), np.repeat([1.0, 0.0], [8, 12])
    controls = np.stack([before, np.roll(before, 1)])
    return AblationResult(
        model=fake_info(4, 4, 2),
        task="needle",
        n_prompts=20,
        mode="mean",
        heads=("L3H0", "L3H2"),
        metrics=(
            ablated_metric("accuracy", before, after, controls),
            ablated_metric("loss", 1 + before, 3 - before, None, units="nat", higher_is_better=False),
        ),
        provenance=fake_provenance(),
    )


def test_an_ablation_is_measured_as_it_says() -> None:
    accuracy, loss = ablation().metrics
    assert (accuracy.before.value, accuracy.after.value) == (0.9, 0.4)
    assert accuracy.change.value == pytest.approx(-0.5)
    assert accuracy.change.interval is not None
    assert accuracy.change.interval.low < -0.5 < accuracy.change.interval.high < 0
    assert accuracy.p is not None
    assert accuracy.p < 0.01
    assert accuracy.control_draws == (0.9, 0.9)
    assert accuracy.before.interval is not None
    assert accuracy.before.interval.method == "Wilson over prompts"
    assert loss.change.value == pytest.approx(
        np.mean((3 - np.repeat([1.0, 0.0], [18, 2])) - (1 + np.repeat([1.0, 0.0], [18, 2])))
    )
    assert (loss.control.kind, loss.control_draws) == ("missing", ())


def test_ablation_results_read_back_and_replace_only_their_own(tmp_path: Path) -> None:
    result = ablation()
    place = write_ablation(tmp_path / "deep" / "ablation.json", result)
    assert open_ablation(place) == result
    write_ablation(place, result.model_copy(update={"mode": "zero"}))
    assert open_ablation(place).mode == "zero"
    place.write_text('{"schema_version": 99}')
    with pytest.raises(ReportError, match="Upgrade attnscope"):
        open_ablation(place)
    place.write_text("my notes")
    with pytest.raises(OutputError, match="nothing was changed"):
        write_ablation(place, result)
    assert place.read_text() == "my notes"
    with pytest.raises(ReportError, match="no such file"):
        open_ablation(tmp_path / "none.json")
