"""Runs of a sink report: written and read back, honest about what they find."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from _fake_sink_report import fake_sink_report

from attnscope.core.errors import OutputError, ReportError
from attnscope.core.run_directory import check_writable, open_run
from attnscope.core.sink_report import SinkReport
from attnscope.core.sink_run import check_sink_run, open_sink_run, sink_table, write_sink_run

REPORT, BARE = fake_sink_report(), fake_sink_report(bare=True)
STATISTICS = {"residual": xr.Dataset({"norm": (("block",), np.arange(3.0))})}


def test_write_then_open(tmp_path: Path) -> None:
    run = write_sink_run(tmp_path / "deep" / "sinks", REPORT, STATISTICS, lambda: "<p>hi</p>")
    opened = open_sink_run(run.path)
    assert opened.report == REPORT
    assert opened.html.read_text() == "<p>hi</p>"
    xr.testing.assert_equal(opened.statistics("residual"), STATISTICS["residual"])
    table = pd.read_parquet(run.path / "sinks.parquet")
    assert list(table.position) == [sink.position for sink in REPORT.sinks]
    assert [p.name for p in run.path.parent.iterdir()] == ["sinks"]
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["format"] == "attnscope-sinks"
    assert {"sinks.json", "sinks.html", "sinks.parquet"} <= set(manifest["files"])


def test_the_table_has_one_row_a_sink_and_no_zero_for_what_is_missing(tmp_path: Path) -> None:
    table = sink_table(REPORT)
    only = table[table.kind == "attention only"].iloc[0]
    assert pd.isna(only.first_layer)
    assert pd.isna(only.norm)
    assert pd.isna(only.writer)
    short = table[table.kind == "short-lived"].iloc[0]
    assert pd.isna(short.share)
    assert short.first_layer == 8
    write_sink_run(tmp_path / "bare", BARE, {}, "")
    empty = pd.read_parquet(tmp_path / "bare" / "sinks.parquet")
    assert list(empty.columns) == list(table.columns)
    assert len(empty) == 0


def test_a_lone_surrogate_in_a_token_becomes_a_question_mark() -> None:
    odd = REPORT.sinks[0].model_copy(update={"token": "a\ud800"})
    report = REPORT.model_copy(update={"sinks": (odd,)})
    assert sink_table(report).token[0] == "a?"


def test_an_earlier_run_is_replaced_and_other_files_are_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "sinks"
    write_sink_run(place, REPORT, STATISTICS, "first")
    write_sink_run(place, BARE, {}, "second")
    assert open_sink_run(place).html.read_text() == "second"
    assert not (place / "statistics").exists()
    (place / "thesis.doc").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.doc"):
        write_sink_run(place, REPORT, {}, "third")
    assert (place / "thesis.doc").read_text() == "mine"
    assert open_sink_run(place).html.read_text() == "second"


def test_the_two_kinds_of_run_do_not_replace_or_open_each_other(tmp_path: Path) -> None:
    write_sink_run(tmp_path / "sinks", REPORT, {}, "")
    with pytest.raises(OutputError, match="did not write"):
        check_writable(tmp_path / "sinks")
    assert check_sink_run(tmp_path / "sinks") == tmp_path / "sinks"
    with pytest.raises(ReportError, match="another format"):
        open_run(tmp_path / "sinks")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.json", "{", "no JSON"),
        ("manifest.json", '{"format": "attnscope-run"}', "another format"),
        ("manifest.json", '{"format": "attnscope-sinks", "version": 99}', "Upgrade attnscope"),
        ("manifest.json", '{"format": "attnscope-sinks", "version": "1"}', "a number"),
        ("sinks.json", "{", "no JSON"),
        ("sinks.json", '{"schema_version": 99}', "Upgrade attnscope"),
        ("sinks.json", '{"schema_version": 1}', "at model"),
        ("sinks.json", "[]", "sink report"),
    ],
)
def test_corrupt_and_newer_runs(tmp_path: Path, name: str, content: str, message: str) -> None:
    run = write_sink_run(tmp_path / "run", REPORT, {}, "")
    (run.path / name).write_text(content)
    with pytest.raises(ReportError, match=message):
        _ = open_sink_run(run.path).report


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no such folder.*attnscope sinks"):
        open_sink_run(tmp_path / "none")
    run = write_sink_run(tmp_path / "run", REPORT, STATISTICS, "")
    with pytest.raises(ReportError, match="residual"):
        run.statistics("other")
    (run.path / "sinks.json").unlink()
    with pytest.raises(ReportError, match="no such file"):
        _ = open_sink_run(run.path).report


def test_a_loss_that_overflows_is_read_back() -> None:
    report = fake_sink_report()
    test = report.writes[0].model_copy(update={"control_changes": (0.5, float("inf"))})
    made = report.model_copy(update={"writes": (test, *report.writes[1:])})
    assert SinkReport.from_json(made.to_json()) == made
