"""`attnscope report --gates`: trained gates are in the run, on its page, and exported from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _command import refused, run

from attnscope import report_extras
from attnscope.core.gate_report import GateReport
from attnscope.core.run_directory import open_run
from attnscope.gate_plan import GatePlan

QUICK = ("--prompts", "1", "--context", "64", "--no-sinks", "--no-retrieval", "--no-frequency", "--device", "cpu")


def test_gates_are_in_the_run_and_exported_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"steps": 2, "context": 128, "needles": 1, "prompts": 2, "checked": 2, "checked_tokens": 128, "draws": 1}
    asked = []

    def quick(plan: object) -> tuple[GatePlan, ...]:
        asked.append(plan.gates)  # type: ignore[attr-defined]
        return tuple(GatePlan(method=method, **small) for method in plan.gates)  # type: ignore[attr-defined]

    monkeypatch.setattr(report_extras, "quick_gates", quick)
    out = tmp_path / "run"
    result = run("report", *QUICK, "--gates", "duo_attention,hardkuma", "--budget", "0.25", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert asked == [("duo_attention", "hardkuma")]
    page = (out / "report.html").read_text()
    assert "DuoAttention: share of full attention" in page
    assert "LycheeDecode: HardKuma gates" in page
    made = open_run(out)
    for method, name, variable in (
        ("duo_attention", "duo_gates", "duo_gate"),
        ("hardkuma", "hardkuma_gates", "hardkuma_a"),
    ):
        told = GateReport.from_json((out / f"gates-{method}.json").read_text())
        assert len(told.gates) == 8
        assert made.statistics(name)[variable].shape == (8, 4)
    full = [item for item in made.report.decode.kv_heads if item.role == "full"]
    assert len(full) == 8
    assert made.report.decode.full_fraction == 0.25
    assert {(7, 0), (7, 3)} <= {(item.layer, item.kv_head) for item in full}
    for form, file in (("duo_attention", "config.json"), ("lychee", "full_head.safetensors")):
        exported = run("export", str(out), "--to", form, "--out", str(tmp_path / form))
        assert exported.exit_code == 0, exported.output
        assert (tmp_path / form / file).is_file()
    config = json.loads((tmp_path / "duo_attention" / "config.json").read_text())
    assert config["sink_size"] == 4


@pytest.mark.parametrize(("arguments", "says"), [(("--gates", "magic"), "hardkuma"), (("--budget", "2"), "0 to 1")])
def test_bad_input_is_refused(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    refused(run("report", *QUICK, *arguments, "--out", str(tmp_path / "run")), says)
    assert list(tmp_path.iterdir()) == []
