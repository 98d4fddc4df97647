"""The pocket model's recipe at toy size: it trains, pauses, goes on, and leaves a model that loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import attnscope
from attnscope.core.paths import data_path
from attnscope.testbed.pocket.config import Recipe
from attnscope.testbed.pocket.train import train

STEPS = 6
TOY = Recipe(
    vocab=700,
    hidden=64,
    intermediate=96,
    layers=2,
    heads=2,
    kv_heads=1,
    tokens_per_step=1024,
    short=256,
    long=512,
    warmup=2,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "prose.txt"
    path.write_text(data_path("pocket/heldout.txt").read_text(encoding="utf-8")[:120_000], encoding="utf-8")
    return path


def test_a_paused_training_goes_on_and_its_model_loads(corpus: Path, tmp_path: Path) -> None:
    def step(pause_at: float) -> dict:
        budget = STEPS * TOY.tokens_per_step
        return train(TOY, corpus, tmp_path, "cpu", tokens=budget, pause_at=pause_at, workers=1, compile_layers=False)

    first = step(0.5)
    assert first["step"] == STEPS // 2
    assert json.loads((tmp_path / "state.json").read_text())["step"] == first["step"]
    last = step(1.0)
    assert last["step"] == STEPS
    assert last["tokens"] == STEPS * TOY.tokens_per_step
    scope = attnscope.load(tmp_path / "model", device="cpu")
    assert (scope.info.n_layers, scope.info.n_heads, scope.info.n_kv_heads) == (2, 2, 1)
    assert not list(tmp_path.rglob("*.pt")), "nothing is pickled"


def test_a_budget_is_needed(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(attnscope.AttnscopeError, match="budget"):
        train(TOY, corpus, tmp_path, "cpu")
