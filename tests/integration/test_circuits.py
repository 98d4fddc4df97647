"""Circuit reports: planted circuits come back exactly, the pocket model's dissociation holds, bad input is refused."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _command import run

import attnscope
from attnscope.ablation_workflow import ablate, read_heads
from attnscope.circuit_plan import CircuitPlan
from attnscope.circuit_workflow import circuit_report
from attnscope.core.circuit_run import open_circuit_run
from attnscope.core.errors import OutputError, TaskError, UnknownHeadError, UnknownNameError
from attnscope.core.ids import HeadId
from attnscope.testbed.planted import circuit_heads, plant, random_circuits, reasoning_prompts, recall_prompts

QUICK: dict[str, Any] = {"prompts": 16, "sizes": (1, 2), "draws": 2, "verify": 4, "edges": False}


@cache
def pocket() -> Any:
    return attnscope.load(device="cpu")


@pytest.mark.parametrize("seed", [0, 3])
def test_planted_circuits_come_back_exactly(seed: int) -> None:
    spec = random_circuits(seed)
    model, tokenizer = plant(spec)
    scope = attnscope.load(model, tokenizer=tokenizer)
    prompts = {"recall": recall_prompts(spec, 32, 20), "reasoning": reasoning_prompts(spec, 32, 20)}
    planted = {task: {str(head) for head in heads} for task, heads in circuit_heads(spec).items()}
    sizes = tuple(sorted({len(heads) for heads in planted.values()}))
    plan = CircuitPlan(levels=("head",), ablation="zero", sizes=sizes, draws=3, edges=False)
    report = circuit_report(scope, plan, prompts=prompts)
    for task, heads in planted.items():
        found = next(c for c in report.circuits if c.task == task and len(c.units) == len(heads))
        assert set(found.units) == heads
    (dissociation,) = report.dissociations
    assert dissociation.verdict == "double"
    assert dissociation.first.own_drop.value > 0.9
    assert dissociation.first.other_drop.value == dissociation.second.other_drop.value == 0


def test_recall_and_reasoning_dissociate_in_heads_of_the_pocket_model() -> None:
    report = circuit_report(pocket(), CircuitPlan(levels=("head",), edges=False, draws=2))
    assert all(task.accuracy.value >= 0.95 for task in report.tasks)  # type: ignore[union-attr]
    (found,) = report.dissociations
    assert found.verdict == "double"
    assert found.first.own_drop.value >= 0.5
    assert found.second.own_drop.value >= 0.3
    assert max(found.first.other_drop.value, found.second.other_drop.value) <= 0.03
    both = next(unit for unit in report.level("head").units if unit.unit == "L0H0")  # type: ignore[union-attr]
    assert min(effect.value for effect in both.effects.values()) > 5  # type: ignore[union-attr]
    assert all("L0H0" not in circuit.units for circuit in report.circuits)
    faithful = {curve.task: curve.faithfulness for curve in report.faithfulness}
    assert all(values[-1] == pytest.approx(1, abs=1e-4) for values in faithful.values())
    back = {(t.source, t.task): t.after.value for t in report.transfers}
    assert back["recall", "recall"] > 0.9


def test_every_level_and_part_on_a_small_plan(tmp_path: Path) -> None:
    out = tmp_path / "run"
    report = circuit_report(pocket(), CircuitPlan(**{**QUICK, "edges": True}, method="atp"), out=out)
    opened = open_circuit_run(out)
    assert opened.report == report
    assert [level.level for level in report.levels] == ["head", "layer", "neuron"]
    assert [level.screen for level in report.levels] == ["atp", None, "atp"]
    assert report.levels[0].n_exact < 64
    assert report.levels[2].n_units == 7168
    assert {edge.task for edge in report.edges} == {"recall", "reasoning"}
    assert opened.statistics("layer-recall").edited.dims == ("prompt", "block", "side")
    assert not (tmp_path / "run.partial").exists()
    assert "Double dissociation" in opened.html.read_text() or "dissociation" in opened.html.read_text()


def test_an_interrupted_report_goes_on_and_equals_an_unbroken_one(tmp_path: Path) -> None:
    plan, out = CircuitPlan(levels=("head",), **QUICK), tmp_path / "run"
    seen: list[str] = []

    @contextmanager
    def breaks(what: str, total: int) -> Any:
        seen.append(what)
        if what.startswith("Circuits of head, reasoning"):
            raise KeyboardInterrupt
        yield lambda done: None

    with pytest.raises(KeyboardInterrupt):
        circuit_report(pocket(), plan, out=out, track=breaks)
    assert not out.exists()
    again: list[str] = []

    @contextmanager
    def listens(what: str, total: int) -> Any:
        again.append(what)
        yield lambda done: None

    resumed = circuit_report(pocket(), plan, out=out, track=listens)
    assert "Ablating heads, recall" in seen
    assert "Ablating heads, recall" not in again
    whole = circuit_report(pocket(), plan)
    assert resumed.model_dump(exclude={"provenance"}) == whole.model_dump(exclude={"provenance"})


def test_finished_parts_of_another_plan_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"

    @contextmanager
    def breaks(what: str, total: int) -> Any:
        if what.startswith("Circuits"):
            raise KeyboardInterrupt
        yield lambda done: None

    with pytest.raises(KeyboardInterrupt):
        circuit_report(pocket(), CircuitPlan(levels=("head",), **QUICK), out=out, track=breaks)
    with pytest.raises(OutputError, match="another"):
        circuit_report(pocket(), CircuitPlan(levels=("head",), **{**QUICK, "prompts": 18}), out=out)


def test_one_task_of_your_own(tmp_path: Path) -> None:
    own = tmp_path / "pairs.jsonl"
    rows = CircuitPlan(tasks=("recall",), prompts=16).build(pocket().tokenizer)["recall"][1]
    lines = [json.dumps({name: row[name] for name in ("prompt", "corrupt", "answer", "wrong")}) for row in rows]
    own.write_text("\n".join(lines))
    report = circuit_report(pocket(), CircuitPlan(pairs=str(own), levels=("layer",), **QUICK))
    assert [task.name for task in report.tasks] == ["pairs"]
    assert not report.dissociations
    assert report.circuits[0].rule == "effect"
    assert "heads were not measured" in report.missing["faithfulness"]


@pytest.mark.parametrize("mode", ["zero", "mean", "resample", "uniform", "static"])
def test_ablation_of_an_early_head(mode: Any) -> None:
    result = ablate((HeadId(0, 0),), pocket(), mode=mode, task="recall_pairs", prompts=16, draws=2)
    accuracy, log_probability, difference = result.metrics
    assert (accuracy.name, difference.name) == ("accuracy", "logit_difference")
    assert accuracy.before.value == 1
    if mode == "static":  # it looks at places, not at what stands there
        assert abs(log_probability.change.value) < 0.01
    elif mode in ("zero", "mean"):
        assert accuracy.change.value < -0.5
    else:
        assert log_probability.change.value < -0.001


def test_loss_and_needles_under_ablation(tmp_path: Path) -> None:
    text = ablate((HeadId(0, 0),), pocket(), task="text", prompts=2, draws=1)
    assert text.metrics[0].name == "loss"
    assert not text.metrics[0].higher_is_better
    heads = read_heads("L6H4, L7H0 L7H1,L7H6,L7H7,L7H5")
    needle = ablate(heads, pocket(), task="needle", prompts=4, draws=1, out=tmp_path / "a.json")
    assert needle.metrics[0].before.value > needle.metrics[0].after.value + 0.5
    assert (tmp_path / "a.json").exists()


def test_bad_plans_and_heads_say_what_is_wrong() -> None:
    for wrong, error, words in (
        ({"tasks": ("recall", "recall")}, TaskError, "two different ones"),
        ({"levels": ("heads",)}, UnknownNameError, "of head, layer, neuron"),
        ({"method": "fast"}, UnknownNameError, "of exact, atp"),
        ({"prompts": 2}, TaskError, "at least 8"),
        ({"sizes": ()}, TaskError, "1 or more"),
        ({"ablation": "noise"}, UnknownNameError, "of mean, zero, resample"),
    ):
        with pytest.raises(error, match=words):
            CircuitPlan(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="pairs of a clean and a corrupt prompt"):
        CircuitPlan(tasks=("needle",)).build(pocket().tokenizer)
    with pytest.raises(UnknownHeadError):
        read_heads(" , ")
    with pytest.raises(UnknownHeadError, match="L99H0"):
        ablate((HeadId(99, 0),), pocket(), task="recall")
    with pytest.raises(UnknownNameError, match="one of zero, mean"):
        ablate((HeadId(0, 0),), pocket(), mode="off")  # type: ignore[arg-type]


def test_the_commands(tmp_path: Path) -> None:
    out = tmp_path / "run"
    quick = ["--level", "head", "--prompts", "16", "--sizes", "1,2", "--draws", "2", "--no-edges"]
    done = run("circuit", "--out", str(out), *quick)
    assert done.exit_code == 0, done.output
    assert (out / "circuits.html").exists()
    assert "recall" in done.output
    kept = (out / "circuits.json").read_text()
    for wrong in (["--task", "sums"], ["--level", "heads"], ["--pairs", "/nowhere.jsonl"], ["--mode", "x"]):
        refused = run("circuit", "--out", str(out), *wrong)
        assert refused.exit_code == 2, refused.output
        assert "error:" in refused.output
    assert (out / "circuits.json").read_text() == kept
    told = run("ablate", "--heads", "L0H0", "--mode", "mean", "--task", "recall", "--prompts", "8", "--draws", "1")
    assert told.exit_code == 0, told.output
    assert "accuracy" in told.output
    for wrong in (["--heads", "L99H0"], ["--heads", "x"], ["--heads", "L0H0", "--task", "needel"]):
        assert run("ablate", *wrong).exit_code == 2
