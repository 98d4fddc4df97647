"""Runs of a retrieval report: written and read back, honest about what they find."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from _fake_retrieval_report import HEADS, LAYERS, fake_retrieval_report
from _fake_sink_report import fake_sink_report

from attnscope.core.errors import OutputError, ReportError
from attnscope.core.retrieval_report import RetrievalReport
from attnscope.core.retrieval_run import (
    MEASURES,
    check_retrieval_run,
    open_retrieval_run,
    retrieval_table,
    write_retrieval_run,
)
from attnscope.core.sink_run import check_sink_run, open_sink_run, write_sink_run

REPORT, BARE = fake_retrieval_report(), fake_retrieval_report(bare=True)
STATISTICS = {"needles": xr.Dataset({"retrieval": (("layer",), np.arange(3.0))})}


def test_write_then_open(tmp_path: Path) -> None:
    run = write_retrieval_run(tmp_path / "deep" / "retrieval", REPORT, STATISTICS, lambda: "<p>hi</p>")
    opened = open_retrieval_run(run.path)
    assert opened.report == REPORT
    assert opened.html.read_text() == "<p>hi</p>"
    xr.testing.assert_equal(opened.statistics("needles"), STATISTICS["needles"])
    assert [p.name for p in run.path.parent.iterdir()] == ["retrieval"]
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("attnscope-retrieval", 1)
    assert {"retrieval.json", "retrieval.html", "retrieval.parquet"} <= set(manifest["files"])


def test_the_table_has_one_row_a_head_and_no_zero_for_what_is_missing(tmp_path: Path) -> None:
    run = write_retrieval_run(tmp_path / "run", REPORT, {}, "")
    table = pd.read_parquet(run.path / "retrieval.parquet")
    assert len(table) == LAYERS * HEADS
    best = table[table.name == "L6H4"].iloc[0]
    assert (best.layer, best["head"], best.kv_head, best.retrieval, best.retrieval_n) == (6, 4, 2, 0.71, 40)
    assert best.retrieval_low == pytest.approx(0.65)
    assert best.vertical_size == 128
    assert pd.isna(best.vertical_slash_mass_low)
    first = table[table.name == "L0H0"].iloc[0]
    for name in ("retrieval", "retrieval_low", "retrieval_n", "qr_score", "vertical_slash_mass", "slash_size"):
        assert pd.isna(first[name]), name
    assert retrieval_table(BARE)[list(MEASURES)].isna().all().all()
    empty = retrieval_table(REPORT.model_copy(update={"heads": ()}))
    assert list(empty.columns) == list(table.columns)
    assert len(empty) == 0


def test_an_earlier_run_is_replaced_and_other_files_are_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "retrieval"
    write_retrieval_run(place, REPORT, STATISTICS, "first")
    write_retrieval_run(place, BARE, {}, "second")
    assert open_retrieval_run(place).html.read_text() == "second"
    assert not (place / "statistics").exists()
    (place / "thesis.doc").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.doc"):
        write_retrieval_run(place, REPORT, {}, "third")
    assert (place / "thesis.doc").read_text() == "mine"
    assert open_retrieval_run(place).html.read_text() == "second"


def test_a_page_that_cannot_be_made_leaves_the_earlier_run(tmp_path: Path) -> None:
    place = tmp_path / "retrieval"
    write_retrieval_run(place, REPORT, {}, "first")

    def broken() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_retrieval_run(place, BARE, {}, broken)
    assert open_retrieval_run(place).html.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["retrieval"]


def test_two_kinds_of_run_do_not_replace_or_open_each_other(tmp_path: Path) -> None:
    write_retrieval_run(tmp_path / "retrieval", REPORT, {}, "")
    write_sink_run(tmp_path / "sinks", fake_sink_report(), {}, "")
    for check, place in ((check_sink_run, "retrieval"), (check_retrieval_run, "sinks")):
        with pytest.raises(OutputError, match="did not write"):
            check(tmp_path / place)
    for opening, place in ((open_sink_run, "retrieval"), (open_retrieval_run, "sinks")):
        with pytest.raises(ReportError, match="another format"):
            opening(tmp_path / place)
    assert check_retrieval_run(tmp_path / "retrieval") == tmp_path / "retrieval"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.json", "{", "no JSON"),
        ("manifest.json", '{"format": "attnscope-retrieval", "version": 99}', "Upgrade attnscope"),
        ("retrieval.json", "{", "no JSON"),
        ("retrieval.json", '{"schema_version": 99}', "Upgrade attnscope"),
        ("retrieval.json", '{"schema_version": 1}', "at model"),
        ("retrieval.json", "[]", "a retrieval report"),
    ],
)
def test_corrupt_and_newer_runs(tmp_path: Path, name: str, content: str, message: str) -> None:
    run = write_retrieval_run(tmp_path / "run", REPORT, {}, "")
    (run.path / name).write_text(content)
    with pytest.raises(ReportError, match=message):
        _ = open_retrieval_run(run.path).report


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no such folder.*attnscope retrieval"):
        open_retrieval_run(tmp_path / "none")
    run = write_retrieval_run(tmp_path / "run", REPORT, STATISTICS, "")
    with pytest.raises(ReportError, match="needles"):
        run.statistics("other")
    (run.path / "retrieval.json").unlink()
    with pytest.raises(ReportError, match="no such file"):
        _ = open_retrieval_run(run.path).report


@pytest.mark.parametrize("report", [REPORT, BARE])
def test_json_reads_back_the_same(report: RetrievalReport) -> None:
    assert RetrievalReport.from_json(report.to_json()) == report
