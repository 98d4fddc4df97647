"""Published circuit experiments: their numbers are complete, their mechanics right, and a wrong line fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _gpt2_shape import save_gpt2_shape

import attnscope
from attnscope.analyses.ioi_circuit import IOI_CIRCUIT, IOI_POSITIONS, found_on_top
from attnscope.core.errors import ModelError, StatisticsError, TaskError, UnknownNameError
from attnscope.core.ids import HeadId
from attnscope.core.published import CIRCUIT_CLAIMS, Published, rows_for
from attnscope.core.report import Missing
from attnscope.core.track import silent
from attnscope.core.units import Unit
from attnscope.engine.sweep.run import sweep
from attnscope.engine.sweep.template_means import template_means
from attnscope.engine.sweep.units import units_of
from attnscope.tasks.ioi import IOI
from attnscope.verify_circuit_measures import circuit_reuse, mib
from attnscope.verify_circuit_parts import CircuitChecks, path_changes
from attnscope.verify_circuits import claims_for, published_circuits, verify_circuits
from attnscope.verify_ioi import ioi
from attnscope_kernels import AttentionCall, attend

QUICK = CircuitChecks(prompts=4, per_template=3, steps=2, sizes=(0.01, 0.1, 1.0))
METRIC = "logit_difference"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2_shape(tmp_path_factory.mktemp("shape") / "narrow")


@pytest.fixture(scope="module")
def scope(folder: Path) -> Any:
    return attnscope.load(str(folder), device="cpu")


def test_every_published_row_can_be_measured_and_reproduced(scope: Any) -> None:
    rows = published_circuits()
    assert {row.claim for row in rows} == set(CIRCUIT_CLAIMS)
    assert len({(row.claim, row.metric) for row in rows}) == len(rows)
    for row in rows:
        assert not isinstance(row.value, float) or row.tolerance.allowed(row.value) > 0
    values = {row.metric: row.value for row in rows_for(rows, "ioi", "openai-community/gpt2")}
    assert (values["logit_difference"], values["io_above_s"], values["circuit_gap"]) == (3.56, 99.3, 0.46)
    assert values["backup_name_movers_on_top"] == len(IOI_CIRCUIT["backup name mover"])
    assert values["circuit_share"] == pytest.approx(1 - 0.46 / 3.56, abs=5e-3)
    curve = {row.metric: row.value for row in rows_for(rows, "mib", "gpt2")}
    assert curve == {"edges": 32491, "cpr": 1.85, "cmd": 0.03, "random_cpr": 0.25, "random_cmd": 0.75}
    assert rows_for(rows, "circuit-reuse", "gpt2") == ()
    assert rows_for(rows, "ioi", "gpt2-medium") == ()


def test_the_published_circuit_has_26_heads_each_with_a_position() -> None:
    heads = [head for group in IOI_CIRCUIT.values() for head in group]
    assert len(heads) == len(set(heads)) == 26
    assert set(IOI_POSITIONS) == set(IOI_CIRCUIT)
    assert all(head.layer < 12 and head.head < 12 for head in heads)


def test_a_planted_ranking_is_counted() -> None:
    change = np.zeros((2, 3))
    change[0, 1], change[1, 2], change[1, 0] = -3.0, -2.0, 5.0
    heads = [HeadId(0, 1), HeadId(1, 2), HeadId(0, 0)]
    assert [found_on_top(change, heads, n, "drop") for n in (1, 2, 3)] == [1, 2, 3]
    assert found_on_top(change, heads, 1, "rise") == 0
    with pytest.raises(StatisticsError, match="first 7 of 6"):
        found_on_top(change, heads, 7, "drop")
    with pytest.raises(StatisticsError, match="missing change"):
        found_on_top(np.full((2, 2), np.nan), heads, 1, "drop")


def test_planted_name_movers_and_negative_ones_are_found(folder: Path) -> None:
    """Only the published heads write, each with the sign that its class has."""
    scope = attnscope.load(str(folder), device="cpu")
    movers, negative = IOI_CIRCUIT["name mover"], IOI_CIRCUIT["negative name mover"]
    pairs = IOI(n=QUICK.prompts, seed=QUICK.seed).build(scope.tokenizer)

    def rows(head: HeadId) -> torch.Tensor:
        return scope.blocks[head.layer].attn.c_proj.weight.data[4 * head.head : 4 * head.head + 4]

    written = {head: rows(head).clone() for head in (*movers, *negative)}
    for block in scope.blocks:
        block.attn.c_proj.weight.data.zero_()
    for head, weight in written.items():
        rows(head).copy_(weight)
    change = path_changes(scope, pairs, QUICK)
    assert np.count_nonzero(np.abs(change) > 1e-6) == 5
    for head in written:
        if (change[head] > 0) == (head in movers):
            rows(head).mul_(-1)
    found = ioi(scope, QUICK, silent).values
    assert (found["name_movers_on_top"], found["negative_name_movers_on_top"]) == (3, 2)
    for head in movers:
        rows(head).mul_(-1)
    assert ioi(scope, QUICK, silent).values["name_movers_on_top"] == 0


def test_f_of_the_circuit_equals_a_plain_run_with_means_by_hand(scope: Any) -> None:
    task = IOI(n=4, seed=0)
    pairs, reference = task.build(scope.tokenizer), task.reference(scope.tokenizer, 3)
    found = ioi(scope, QUICK, silent).values
    kept = {head: IOI_POSITIONS[name] for name, heads in IOI_CIRCUIT.items() for head in heads}
    expected: dict[str, list[float]] = {"circuit": [], "ablated": []}
    for row in pairs:
        ids = torch.tensor([r["input_ids"] for r in reference if r["template"] == row["template"]])
        means: dict[int, torch.Tensor] = {}

        def keep(call: AttentionCall, means: dict[int, torch.Tensor] = means) -> Any:
            z = attend(call).output
            assert z is not None
            means[call.layer] = z.mean(0)
            return z

        with torch.no_grad(), scope.attach(keep):
            scope.model(input_ids=ids)
        for name in expected:

            def ablate(call: AttentionCall, means: Any = means, row: Any = row, name: str = name) -> Any:
                own = attend(call).output
                assert own is not None
                z = means[call.layer][None].clone()
                for head, (column, after) in kept.items():
                    if head.layer == call.layer and name == "circuit":
                        at = row[column] + after
                        z[0, head.head, at] = own[0, head.head, at]
                return z

            with torch.no_grad(), scope.attach(ablate):
                logits = scope.model(input_ids=torch.tensor([row["input_ids"]])).logits[0, -1]
            expected[name].append(float(logits[row["answer_ids"][0]] - logits[row["wrong_ids"][0]]))
    for name, values in expected.items():
        assert found[f"{name}_logit_difference"] == pytest.approx(np.mean(values), abs=1e-4)
    assert abs(np.mean(expected["circuit"]) - np.mean(expected["ablated"])) > 1e-3
    assert found["circuit_gap"] == pytest.approx(
        abs(found["logit_difference"] - np.mean(expected["circuit"])), abs=1e-4
    )  # type: ignore[operator]


def test_heads_kept_at_the_last_token_are_not_ablated_there(scope: Any) -> None:
    """Heads that keep their own output at the last token, on which alone the last block's answer depends."""
    task = IOI(n=3, templates=(0,))
    pairs, reference = task.build(scope.tokenizer), task.reference(scope.tokenizer, 2)
    last = {HeadId(11, head): ("end_position", 0) for head in range(12)}
    block = [tuple(Unit("head", 11, head) for head in range(12))]
    run = sweep(scope, pairs, block, metrics=METRIC, alternative=template_means(scope, reference, last))
    np.testing.assert_allclose(run.values[METRIC][:, 0], run.baseline[METRIC], atol=1e-4)
    bare = sweep(scope, pairs, block, metrics=METRIC, alternative=template_means(scope, reference))
    assert np.abs(bare.values[METRIC][:, 0] - bare.baseline[METRIC]).max() > 1e-3


def test_means_need_the_prompts_own_templates(scope: Any) -> None:
    pairs = IOI(n=2, templates=(0,)).build(scope.tokenizer)
    other = template_means(scope, IOI(n=1, templates=(2,)).reference(scope.tokenizer, 2))
    with pytest.raises(TaskError, match="template 0"):
        sweep(scope, pairs, [units_of(scope, "head")], metrics=METRIC, alternative=other)
    with pytest.raises(TaskError, match="units other than heads"):
        sweep(scope, pairs, "mlp", metrics=METRIC, alternative=other)
    with pytest.raises(TaskError, match="also template"):
        template_means(scope, pairs.remove_columns("template"))


def test_mib_s_measures(scope: Any) -> None:
    found = mib(scope, QUICK, silent)
    assert found.values["edges"] == 32491
    assert found.values["all_edges_gap"] < 1e-3  # type: ignore[operator]
    assert all(np.isfinite(float(found.values[name])) for name in ("cpr", "cmd", "random_cpr", "random_cmd"))  # type: ignore[arg-type]
    assert found.values["cpr"] > found.values["random_cpr"]  # type: ignore[operator]
    one = mib(scope, CircuitChecks(prompts=2, steps=1, sizes=(1.0,)), silent)
    assert isinstance(one.values["cpr"], Missing)


def row(claim: str, metric: str, value: float, units: str = "1") -> Published:
    return Published.model_validate(
        {"claim": claim, "models": ["narrow"], "metric": metric, "value": value, "units": units, "origin": "code",
         "source": CIRCUIT_CLAIMS[claim], "protocol": {"n": 1},
         "tolerance": {"relative": 0.0, "absolute": 1e-3, "reason": "planted"}}
    )  # fmt: skip


def test_a_line_with_another_number_fails(scope: Any) -> None:
    measured = {
        r.metric: r.measured for r in verify_circuits(["greater-than", "ioi"], scope, QUICK, published=())[1].rows
    }
    right, wrong = float(measured["logit_difference"]), float(measured["io_above_s"]) + 0.5  # type: ignore[arg-type]
    rows = [row("ioi", "logit_difference", right), row("ioi", "io_above_s", wrong)]
    (found,) = verify_circuits(["ioi"], scope, QUICK, published=rows)
    verdicts = {r.metric: r.verdict for r in found.rows}
    assert (verdicts["logit_difference"], verdicts["io_above_s"]) == ("reproduced", "not reproduced")
    assert verdicts["backup_name_movers_on_top"].startswith("not measured")
    assert found.published


def test_random_weights_and_other_shapes_claim_nothing(tmp_path: Path, folder: Path) -> None:
    drawn = attnscope.load(str(folder), random_weights=True, device="cpu")
    (found,) = verify_circuits(["ioi"], drawn, QUICK, published=[row("ioi", "logit_difference", 3.56)])
    assert not any(r.verdict in ("reproduced", "not reproduced") for r in found.rows)
    assert any("Random weights" in note for note in found.notes)
    with pytest.raises(ModelError, match="random weights"):
        verify_circuits(["ioi"], drawn, QUICK, published_as="gpt2")
    small = attnscope.load(str(save_gpt2_shape(tmp_path / "gpt2", layers=2, heads=4)), device="cpu")
    (found,) = verify_circuits(["ioi"], small, QUICK)
    verdicts = {r.metric: r.verdict for r in found.rows}
    assert "12 layers of 12 heads" in verdicts["name_movers_on_top"]
    assert verdicts["logit_difference"] == "not reproduced"


def test_circuit_reuse_shares_heads_of_two_tasks(scope: Any) -> None:
    found = circuit_reuse(scope, CircuitChecks(prompts=3), silent).values
    assert 0 <= found["shared_heads"] <= 1  # type: ignore[operator]
    assert 3 <= found["heads_first_task"] <= 6  # type: ignore[operator]
    assert claims_for(scope) == ("ioi", "mib", "greater-than")


def test_bad_questions_are_refused(scope: Any) -> None:
    with pytest.raises(UnknownNameError, match="banana"):
        verify_circuits(["banana"], scope)
    with pytest.raises(UnknownNameError, match="gpt2-medium"):
        verify_circuits(["ioi"], scope, published_as="gpt9")
    with pytest.raises(ModelError, match="tokenizer"):
        verify_circuits(["ioi"], attnscope.load(scope.model))
