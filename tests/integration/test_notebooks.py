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
    tested = ["00_quickstart", "01_attention_sinks", "02_residual_sinks", "03_retrieval_heads"]
    assert [path.stem for path in NOTEBOOKS] == tested


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
