"""The job of `attnscope gates`: prompts, the run folder, going on, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from attnscope.core.errors import OutputError, ReportError, TaskError
from attnscope.core.gate_report import GateReport, open_gate_run
from attnscope.gate_plan import GatePlan, cost
from attnscope.gate_workflow import train_run
from attnscope.models._loading import load
from attnscope.models.toy import Toy
from attnscope.present.gates_text import gates_summary
from attnscope.tasks._answers import with_answers
from attnscope.tasks.passkeys import Passkeys
from attnscope.testbed import planted

SPEC = planted.random_spec(2)
MODEL, TOKENIZER = planted.plant(SPEC)
SCOPE = load(MODEL, tokenizer=TOKENIZER)
TRAINED, HELD = (with_answers(planted.needle_prompts(SPEC, n=2, length=64, seed=seed)) for seed in (1, 2))
PLAN = GatePlan(steps=6, sink_tokens=1, recent_tokens=8, draws=2)


def stopping(at: int) -> Any:
    @contextmanager
    def track(what: str, total: int) -> Iterator[Callable[[int], None]]:
        def advance(done: int) -> None:
            if what.startswith("Training") and done == at:
                raise KeyboardInterrupt

        yield advance

    return track


@pytest.mark.parametrize("method", ["duo_attention", "hardkuma"])
def test_a_run_is_read_back_whole(method: str, tmp_path: Path) -> None:
    plan = GatePlan(method=method, steps=6, sink_tokens=1, recent_tokens=8, draws=2)  # type: ignore[arg-type]
    report, statistics = train_run(SCOPE, plan, out=tmp_path / "run", prompts=TRAINED, checks=HELD)
    run = open_gate_run(tmp_path / "run")
    assert run.report == report
    assert GateReport.from_json(report.to_json()) == report
    name = {"duo_attention": "duo_gates", "hardkuma": "hardkuma_gates"}[method]
    assert [p.name for p in (tmp_path / "run" / "statistics").iterdir()] == [f"{name}.zarr"]
    stored = run.statistics()
    assert stored.attrs["sink_tokens"] == 1
    for variable in statistics.data_vars:
        np.testing.assert_array_equal(stored[variable].values, statistics[variable].values)
    np.testing.assert_array_equal(stored[report.gate].values, report.gates)
    assert report.full_accuracy == 1
    assert report.answer_accuracy == 1
    assert [one.budget for one in report.kept] == [0.25, 0.5]
    assert [one.full_heads for one in report.kept] == [4, 8]
    assert all(len(one.controls) == 2 for one in report.kept)
    assert report.kept[0].controls_exclude_chosen
    assert {s.name for s in report.provenance.prompt_sets} == {"training", "held-out"}
    assert not (tmp_path / "run.partial").exists()


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train_run(SCOPE, PLAN, prompts=TRAINED)
    monkeypatch.setattr("attnscope.engine.gates.checkpoint.GateCheckpoint.due", lambda self: self.path is not None)
    with pytest.raises(KeyboardInterrupt):
        train_run(SCOPE, PLAN, out=tmp_path / "run", prompts=TRAINED, track=stopping(3))
    assert (tmp_path / "run.partial" / "gates.safetensors").exists()
    assert not (tmp_path / "run").exists()
    with pytest.raises(OutputError, match="another training run"):
        train_run(SCOPE, GatePlan(steps=5), out=tmp_path / "run", prompts=TRAINED)
    again, _ = train_run(SCOPE, PLAN, out=tmp_path / "run", prompts=TRAINED, track=stopping(2))
    assert again.gates == whole.gates
    assert again.final_losses == whole.final_losses
    assert not (tmp_path / "run.partial").exists()


def test_a_model_that_cannot_answer_is_trained_and_told_of() -> None:
    prompts = TRAINED.map(lambda row: {"target_ids": [1] * len(row["target_ids"])})
    report, _ = train_run(SCOPE, PLAN, prompts=prompts)
    assert report.answer_accuracy == 0
    assert report.full_accuracy is None
    assert "predicts 0.0% of the answer tokens" in report.provenance.notes[0]
    toy = Toy(vocab_size=SPEC.vocab_size)
    report, _ = train_run(toy, PLAN, prompts=TRAINED)
    assert "weights are random" in report.provenance.notes[-1]
    assert np.isfinite(report.gates).all()


def test_terminal_text_has_every_gate() -> None:
    report, _ = train_run(SCOPE, PLAN, prompts=TRAINED, checks=HELD)
    console = Console(width=100, record=True, file=StringIO())
    console.print(gates_summary(report))
    text = console.export_text()
    for row in report.gates:
        assert "  ".join(f"{gate:.2f}" for gate in row) in text
    assert "4 (25%)" in text
    assert "2410.10819" in text


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="'banana'"):
        GatePlan(method="banana")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="without a tokenizer"):
        train_run(Toy(), PLAN)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match=r"mine\.txt"):
        train_run(SCOPE, PLAN, out=tmp_path, prompts=TRAINED)
    with pytest.raises(ReportError, match="no such folder"):
        open_gate_run(tmp_path / "absent")


def test_settings_and_cost_follow_the_prompt() -> None:
    info = load().info
    assert GatePlan(context=1024).settings(info).recent_tokens == 128
    assert GatePlan(context=64).settings(info).recent_tokens == 16
    assert GatePlan().length(info.model_copy(update={"context_length": 200})) == 200
    with pytest.raises(TaskError, match="at most 8192"):
        GatePlan(context=10**6).settings(info)
    assert GatePlan(learning_rate=0.5).settings(info).learning_rate == 0.5
    assert GatePlan().settings(info).learning_rate == 0.02
    assert GatePlan(method="hardkuma").settings(info).learning_rate == 0.01
    short, long = (cost(info, GatePlan(steps=steps)) for steps in (10, 100))
    assert long[0] - short[0] == 90 * 512
    assert long[1] > short[1] > 0


@pytest.mark.parametrize("needles", [1, 4, 10])
def test_passkeys_know_where_everything_stands(needles: int) -> None:
    tokenizer = load().tokenizer
    rows = Passkeys(n=8, length=700, needles=needles, seed=3).build(tokenizer)
    for row in rows:
        ids = [*row["input_ids"], row["target_ids"][-1]]
        assert len(ids) == row["length"] == 700
        assert ids[0] == tokenizer.bos_token_id
        assert [ids[i] for i in row["source_positions"]] == row["target_ids"]
        assert [ids[i + 1] for i in row["query_positions"]] == row["target_ids"]
        assert len(row["target_ids"]) == 5 * needles
        assert len(row["depths"]) == needles
        assert max(row["source_positions"]) < min(row["query_positions"])
        assert {int(depth * needles) for depth in row["depths"]} == set(range(needles))
    assert rows[0]["input_ids"] != rows[1]["input_ids"]
    again = Passkeys(n=8, length=700, needles=needles, seed=3).build(tokenizer)
    assert again["input_ids"] == rows["input_ids"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Passkeys(n=0), "0 prompts"),
        (lambda: Passkeys(split="all"), "'all'"),  # type: ignore[arg-type]
        (lambda: Passkeys(length=60, needles=5).rows(load().tokenizer), "room for"),
        (lambda: Passkeys(length=90, needles=1, haystack="Too little.").rows(load().tokenizer), "haystack of"),
    ],
)
def test_passkeys_that_do_not_fit_are_named(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(TaskError, match=says):
        make()
