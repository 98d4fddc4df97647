"""Every notebook's code runs, cell by cell, on the embedded model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def executed(path: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), names)
    return names


def test_every_notebook_is_tested() -> None:
    tested = ["00_quickstart", "01_attention_sinks", "02_residual_sinks", "03_retrieval_heads", "04_frequency_chunks"]
    assert [path.stem for path in NOTEBOOKS] == [*tested, "05_recall_vs_reasoning", "06_ioi_and_reuse"]


def test_quickstart_tells_the_truth() -> None:
    names = executed(NOTEBOOKS[0])
    assert names["before"] > 0.95
    assert names["after"] < 0.1


def test_attention_sinks_tells_the_truth() -> None:
    names = executed(next(path for path in NOTEBOOKS if path.stem == "01_attention_sinks"))
    assert (names["writer"].module, names["writer"].layer, len(names["writer"].neurons)) == ("mlp", 1, 1)
    assert names["total"] == pytest.approx(268, rel=0.02)
    curve = names["curve"]
    assert curve.share.is_monotonic_increasing
    assert curve.lifetime.is_monotonic_increasing
    assert (curve.lifetime.iloc[0], curve.lifetime.iloc[-1]) == (0, 7)
    assert max(names["random_positions"]) < names["change"] < min(names["random_writes"])
    assert not names["secondary"]
    assert names["dormant"].iloc[0] <= 1
    assert names["dormant"].max() > 0.5


def test_residual_sinks_tells_the_truth() -> None:
    names = executed(next(path for path in NOTEBOOKS if path.stem == "02_residual_sinks"))
    assert [one.dimension for one in names["found"].dimensions] == [43]
    assert names["held"]
    effects = names["effects"]
    assert (effects["loss change"] > effects["largest control"]).all()
    assert effects["loss change"]["mean"] < effects["loss change"]["zero"]
    assert names["reads"].direct.median() > 0.2
    quantised = names["quantised"]
    assert quantised.loss < quantised.sinks_apart < min(*quantised.random_apart, quantised.quantised)
    assert names["found"].massive == ()


def test_retrieval_heads_tells_the_truth() -> None:
    names = executed(next(path for path in NOTEBOOKS if path.stem == "03_retrieval_heads"))
    assert names["gap"] < 1e-6
    assert 0.05 < len(names["retrieving"]) / 64 < 0.2
    assert (names["mean"] == 0).mean() > 0.5
    assert names["steady"].settled <= 8
    curve = names["curve"].set_index("heads")
    all_of_them = curve.loc[len(names["retrieving"])]
    assert all_of_them["without them"].max() <= 0.1
    assert all_of_them["without random others"].min() >= 0.8
    agreement = names["table"].corr("spearman").loc["retrieval"]
    assert 0.2 < agreement["QRHead"] < 0.9
    assert 0.2 < agreement["induction"] < 0.9


def test_frequency_chunks_tells_the_truth() -> None:
    names = executed(next(path for path in NOTEBOOKS if path.stem == "04_frequency_chunks"))
    report, table = names["report"], names["table"]
    assert 0.05 < report.dominant_share < 0.2  # claim 1: not the paper's 1%
    assert min(names["best"]) > 3 * report.chance
    rivals = table.loc[["Recent keys", "First 4 and recent keys", "SnapKV", "16 random chunks"]]
    assert (table.loc["16 of 32 chunks"] > rivals.max() + 0.1).all()
    assert names["lowest"] > 0.1
    assert (table.loc["16 random chunks"] > table.loc["Recent keys"]).all()
    ours, papers = names["beside"]["4 of 32 chunks"], names["beside"]["8 of 32 chunks"]
    assert 0 < ours[1] - ours[0] < 10
    assert 0 < papers[1] - papers[0] < 10
    pairs = names["pairs"]
    assert min(pairs["needle", "text"], pairs["reasoning", "recall"]) > 0.7
    assert all(2 * report.overlaps[0].chance < overlap < 0.9 for overlap in pairs.values())
    assert 0.65 < names["low"].mean() < 0.85
    assert names["moved"]["true pairs"] < 1e-4
    assert names["moved"]["adjacent pairs"] > 0.1
    assert (names["compared"]["true pairs"] > names["compared"]["adjacent pairs"]).all()


def test_recall_vs_reasoning_tells_the_truth() -> None:
    names = executed(next(path for path in NOTEBOOKS if path.stem == "05_recall_vs_reasoning"))
    lengths = [[len(ids) for ids in pairs["input_ids"]] for pairs in names["tasks"].values()]
    assert lengths[0] == lengths[1]
    assert names["long"] > names["short"] + 0.2
    assert min(names["shared"]) > 8  # L0H0, on both tasks
    heads = {name: {str(unit) for unit in units} for name, units in names["chosen"].items()}
    assert "L0H4" in heads["recall"]
    assert "L0H5" in heads["reasoning"]
    assert "L0H0" not in heads["recall"] | heads["reasoning"]
    found = names["found"]
    assert found.verdict == "double"
    assert found.first.certain
    assert found.second.certain
    assert min(found.first.own.value, found.second.own.value) > 0.35
    exact = names["table"].loc["L0N79"]
    assert exact["recall, exact"] > 3 * exact["recall, screen"]


def test_ioi_and_reuse_tells_the_truth() -> None:
    names = executed(next(path for path in NOTEBOOKS if path.stem == "06_ioi_and_reuse"))
    assert names["base"].mean() < 0.5  # the model does not do IOI
    assert all(run.drift < 1e-3 and run.forwards < 100 for run in names["patched"].values())
    agreement, sizes = names["agreement"], names["sizes"]
    for task in ("recall", "reasoning"):
        assert agreement[task, "logit_difference"] > agreement[task, "log_probability"]
        assert sizes[task, "log_probability"] < 0.01 < sizes[task, "logit_difference"]
    assert names["head"].layer >= 4
    assert names["overlap"].p > 0.05
    assert "L0H0" in names["overlap"].shared
    repair = names["repair"]
    assert repair.loc["recall circuit", "recall"] > 0.8
    assert repair.loc["reasoning circuit", "reasoning"] > 0.8
    assert repair.loc[["random 0", "random 1", "random 2"]].max().max() < 0.5
