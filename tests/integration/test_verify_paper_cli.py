"""`attnscope verify-paper` on planted models, whose sinks are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _command import refused, run

from attnscope.core.published import Published, Verification
from attnscope.models._loading import load
from attnscope.testbed.planted import PlantedSink, PlantedSpec, save
from attnscope.verify_measures import VerifyPlan
from attnscope.verify_paper import verify_paper, write_comparison

QUICK = ["--prompts", "4", "--device", "cpu"]
PUBLISHED = {"layers": 6, "primary_first_layer": 1, "primary_lifetime": 4}


def published() -> list[Published]:
    return [
        Published(
            claim="secondary-sinks",
            models=("Planted-1B",),
            metric=metric,
            value=value,
            units="block",
            source="2512.22213",
            origin="code",
            protocol={"T": 64},
            tolerance={"relative": 0, "absolute": 0, "reason": "planted"},  # type: ignore[arg-type]
        )
        for metric, value in PUBLISHED.items()
    ]


@pytest.mark.parametrize(
    ("name", "lifetime", "verdicts"),
    [
        ("Planted-1B", 4, ["reproduced"] * 3),
        ("Planted-1B", 3, ["reproduced", "reproduced", "not reproduced"]),
        ("Planted-2B", 4, ["nothing published"] * 3),
    ],
)
def test_planted_sinks_against_published_ones(
    tmp_path: Path, planted_text: Path, name: str, lifetime: int, verdicts: list[str]
) -> None:
    spec = PlantedSpec(n_layers=6, sinks=(PlantedSink("bos", 1, lifetime, 500.0),))
    save(spec, tmp_path / name)
    scope = load(str(tmp_path / name), device="cpu")
    plan = VerifyPlan(str(planted_text), prompts=2, context=64)
    found = verify_paper("secondary-sinks", scope, plan, published=published())
    rows = {row.metric: row for row in found.rows}
    assert [rows[metric].verdict for metric in PUBLISHED] == verdicts
    assert rows["primary_lifetime"].measured == lifetime
    assert found.published == (name == "Planted-1B")
    written = write_comparison(tmp_path / "out" / "comparison.json", found)
    assert Verification.model_validate_json(written.read_text()) == found
    assert [p.name for p in written.parent.iterdir()] == ["comparison.json"]


def test_a_model_without_published_numbers_still_runs(tmp_path: Path, planted_folder: Path, planted_text: Path) -> None:
    out = tmp_path / "rate.json"
    arguments = ["sink-rate", "--model", planted_folder, "--text", planted_text, "--out", out, *QUICK]
    result = run("verify-paper", *arguments)
    assert result.exit_code == 0, result.output
    assert "nothing published for this model" in result.output
    assert "Llama-2-7b" in result.output
    assert "768 tokens" in result.stderr
    rows = {row["metric"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["sink_rate_natural"]["measured"] > 0
    assert run("verify-paper", *arguments).exit_code == 0  # an earlier comparison is replaced


def test_not_reproduced_is_a_result(tmp_path: Path, planted_text: Path) -> None:
    save(PlantedSpec(n_layers=2), tmp_path / "gpt2-xl")
    result = run("verify-paper", "sink-rate", "--model", tmp_path / "gpt2-xl", "--text", planted_text, *QUICK)
    assert result.exit_code == 0, result.output
    assert result.output.count("not reproduced") == 3
    assert "77.0" in result.output


def test_bad_input_leaves_files_as_they_were(tmp_path: Path, planted_folder: Path) -> None:
    earlier = tmp_path / "earlier.json"
    earlier.write_text('{"format": "attnscope-verification"}')
    model = ["--model", planted_folder, "--device", "cpu"]
    refused(run("verify-paper", "banana", *model, "--out", earlier), "banana", "secondary-sinks", "residual-sinks")
    refused(run("verify-paper", "sink-rate", "--model", tmp_path / "none", "--out", earlier), "none")
    refused(run("verify-paper", "sink-rate", *model, "--text", tmp_path / "no.txt", "--out", earlier), "no such file")
    assert earlier.read_text() == '{"format": "attnscope-verification"}'
    theirs = tmp_path / "thesis.json"
    theirs.write_text("ten years")
    refused(run("verify-paper", "sink-rate", *model, "--out", theirs), "thesis.json", "nothing was changed")
    assert theirs.read_text() == "ten years"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["earlier.json", "thesis.json"]
