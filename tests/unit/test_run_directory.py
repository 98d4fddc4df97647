"""Run directories: atomic, honest about what they find."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from attnscope.analyses.decode_roles import decode_role
from attnscope.core import run_directory, statistics
from attnscope.core.errors import OutputError, ReportError
from attnscope.core.model_info import ModelInfo
from attnscope.core.names import SCORES, Variable
from attnscope.core.report import HeadReport, Measured, Missing, Provenance
from attnscope.core.run_directory import check_writable, open_run, write_run
from attnscope.reports.build import build

INFO = ModelInfo(
    model_id="m",
    architecture="A",
    backend="toy",
    n_layers=2,
    attention_layers=(0, 1),
    n_heads=2,
    n_kv_heads=1,
    head_dim=8,
    d_model=16,
    vocab_size=50,
)
PROVENANCE = Provenance(
    attnscope_version="0",
    created="2026-01-01",
    command=None,
    seed=0,
    implementation="tiled",
    libraries={},
    prompt_sets=(),
    read_sites={},
    bos_policy="none",
)


def stats() -> dict[str, xr.Dataset]:
    scores = np.array([[[0.9, 0.1], [0.2, np.nan]], [[0.7, 0.3], [0.2, np.nan]]])
    variable = Variable("induction", ("prompt", "layer", "head"), "1", "x")
    return {"repeats": statistics.dataset(INFO, [(variable, scores)], attrs={"prompts": 2})}


def report() -> HeadReport:
    return build(INFO, stats(), PROVENANCE)


def test_report_says_measured_and_missing() -> None:
    made = report()
    first = made["L0H0"].scores["induction"]
    assert isinstance(first, Measured)
    assert first.value == pytest.approx(0.8)
    assert first.interval is not None
    assert first.interval.low == pytest.approx(0.7)
    assert isinstance(made["L1H1"].scores["induction"], Missing)
    assert isinstance(made["L0H0"].scores["entropy"], Missing)
    assert set(made["L0H0"].scores) == set(SCORES)
    assert [str(h) for h in made.heads_labelled("induction")] == ["L0H0"]
    assert np.isnan(made.heads.set_index("name").induction["L1H1"])


def test_written_read_written_is_identical() -> None:
    text = report().to_json()
    assert HeadReport.from_json(text).to_json() == text


def test_write_then_open(tmp_path: Path) -> None:
    run = write_run(tmp_path / "deep" / "run", report(), stats(), {"report.html": "<p>hi</p>"})
    opened = open_run(run.path)
    assert opened.report == report()
    xr.testing.assert_identical(opened.statistics("repeats"), stats()["repeats"])
    assert opened.html.read_text() == "<p>hi</p>"
    assert list(pd.read_parquet(run.path / "heads.parquet").name) == ["L0H0", "L0H1", "L1H0", "L1H1"]
    assert len(pd.read_csv(run.path / "heads.csv")) == 4
    assert [p.name for p in run.path.parent.iterdir()] == ["run"]


def test_an_earlier_run_is_replaced_whole(tmp_path: Path) -> None:
    write_run(tmp_path / "run", report(), stats(), {"old.html": "old"})
    write_run(tmp_path / "run", report(), stats(), {"new.html": "new"})
    assert not (tmp_path / "run" / "old.html").exists()
    assert (tmp_path / "run" / "new.html").exists()


def test_other_people_s_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("ten years of work")
    with pytest.raises(OutputError, match=r"thesis\.doc.*Choose another --out"):
        write_run(tmp_path, report(), stats(), {})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]
    run = tmp_path / "run"
    write_run(run, report(), stats(), {})
    (run / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        write_run(run, report(), stats(), {})
    assert (run / "notes.txt").read_text() == "mine"


def test_output_on_a_file_or_below_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError):
            check_writable(bad)
    with pytest.raises(OutputError):
        write_run("/proc/attnscope-run", report(), stats(), {})


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_nothing_is_left_half_written(tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    write_run(run, report(), stats(), {"page.html": "first"})

    def page() -> str:
        raise error

    with pytest.raises((KeyboardInterrupt, OutputError)):
        write_run(run, report(), stats(), {"page.html": page})
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert (run / "page.html").read_text() == "first"
    original = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError("no rename today")
        return original(self, target)

    monkeypatch.setattr(run_directory.Path, "rename", refuse)
    with pytest.raises(OutputError, match="no rename today"):
        write_run(run, report(), stats(), {})
    assert (run / "page.html").read_text() == "first"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.json", "{", "no JSON"),
        ("manifest.json", '{"format": "other"}', "another format"),
        ("manifest.json", '{"format": "attnscope-run", "version": 99}', "Upgrade attnscope"),
        ("report.json", "{", "no JSON"),
        ("report.json", '{"schema_version": 99}', "Upgrade attnscope"),
        ("report.json", '{"schema_version": 1}', "at model"),
        ("report.json", "[]", "head report"),
    ],
)
def test_corrupt_and_newer_runs(tmp_path: Path, name: str, content: str, message: str) -> None:
    run = write_run(tmp_path / "run", report(), stats(), {})
    (run.path / name).write_text(content)
    with pytest.raises(ReportError, match=message):
        _ = open_run(run.path).report


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such folder"):
        open_run(tmp_path / "none")
    with pytest.raises(ReportError, match="no such file"):
        open_run(tmp_path)
    run = write_run(tmp_path / "run", report(), stats(), {})
    with pytest.raises(ReportError, match="repeats"):
        run.statistics("text")
    (run.path / "statistics" / "repeats.zarr" / "induction" / ".zarray").write_text("{")
    with pytest.raises(ReportError, match="unreadable"):
        run.statistics("repeats")


def test_unknown_fields_are_refused() -> None:
    raw = json.loads(report().to_json())
    raw["surprise"] = 1
    with pytest.raises(ReportError, match="surprise"):
        HeadReport.from_json(json.dumps(raw))


def test_decode_roles() -> None:
    assert decode_role([{"sink"}, {"retrieval"}], [1.0, 1.0], 0.9) == ("full", "serves retrieval")
    assert decode_role([{"sink"}, {"local"}], [0.95, 1.0], 0.9)[0] == "streaming"
    assert decode_role([{"sink"}, {"local"}], [0.85, 1.0], 0.9)[0] == "full"
    assert decode_role([{"sink"}], [float("nan")], 0.9) == ("full", "attention on sink and window was not measured")
