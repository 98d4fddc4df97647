"""On planted models every head gets exactly the label it was planted with."""

from __future__ import annotations

import pytest

from attnscope.core.errors import AttnscopeError
from attnscope.core.report import HeadReport
from attnscope.models._loading import load
from attnscope.report_plan import ReportPlan
from attnscope.tasks._answers import with_answers
from attnscope.testbed import planted
from attnscope.testbed.planted import PlantedSpec
from attnscope.workflow import report


def measured(spec: PlantedSpec) -> HeadReport:
    model, tokenizer = planted.plant(spec)
    scope = load(model, tokenizer=tokenizer)
    prompts = {
        "text": planted.text_prompts(spec, n=6, length=256, seed=1),
        "short": planted.text_prompts(spec, n=20, length=64, seed=2),
        "needle": with_answers(planted.needle_prompts(spec, n=8, length=160, seed=3)),
    }
    plan = ReportPlan(context=256, period=60, repeats=6, echoes=3)
    return report(scope, plan, prompts=prompts)


def labels_of(made: HeadReport) -> dict[str, set[str]]:
    return {str(record.id): {label.name for label in record.labels} for record in made.records}


def expected(spec: PlantedSpec) -> dict[str, set[str]]:
    return {str(head): set(labels) for head, labels in planted.expected_labels(spec).items()}


@pytest.mark.parametrize("seed", range(8))
def test_every_head_gets_exactly_its_label(seed: int) -> None:
    spec = planted.random_spec(seed)
    assert labels_of(measured(spec)) == expected(spec)


def test_circuit_heads_rest_where_nothing_is_recalled_or_reasoned() -> None:
    spec = planted.random_circuits(1)
    labels = planted.expected_labels(spec, effects=False)
    assert {head for head, names in labels.items() if names == {"sink"}} >= set(spec.of_kind("recall"))
    assert labels_of(measured(spec)) == {str(head): set(names) for head, names in labels.items()}


def test_the_knocked_out_twin_loses_its_label() -> None:
    spec = planted.random_spec(1)
    head = spec.of_kind("induction")[0]
    twin = spec.without(head)
    assert labels_of(measured(twin)) == expected(twin)
    assert "induction" not in labels_of(measured(twin))[str(head)]


def test_knocking_out_the_supporting_head_kills_induction_too() -> None:
    spec = planted.random_spec(2)
    support = planted.supporting_head(spec)
    assert support is not None
    twin = spec.without(support)
    assert labels_of(measured(twin)) == expected(twin)


def test_ablating_planted_induction_heads_removes_copying() -> None:
    made = measured(planted.random_spec(0))
    check = next(check for check in made.causal_checks if check.label == "induction")
    assert check.baseline.value > 0.95
    assert check.ablated.value < 0.1
    assert check.random_control.value > 0.9
    assert not set(check.heads) - set(map(str, made.heads_labelled("induction")))


def test_given_prompts_are_used_and_never_replaced() -> None:
    spec = planted.random_spec(0)
    model, tokenizer = planted.plant(spec)
    scope = load(model, tokenizer=tokenizer)
    empty = planted.text_prompts(spec, n=1, length=64, seed=0).select([])
    with pytest.raises(AttnscopeError, match="no prompts"):
        report(scope, prompts={"text": empty, "needle": planted_needles(spec)})
    with pytest.raises(AttnscopeError, match="banana"):
        report(scope, prompts={"banana": empty})


def planted_needles(spec: PlantedSpec):
    return with_answers(planted.needle_prompts(spec, n=2, length=64, seed=3))
