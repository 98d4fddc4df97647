"""Terminal text of circuit reports and ablations: never markup, missing is never 0, narrow terminals work."""

from __future__ import annotations

import pytest
from _fake_circuit_report import EDIT, fake_circuit_report
from _fake_report import HOSTILE_MODEL
from test_circuit_run import ablation
from test_present_text import printed

from attnscope.present.ablation_text import ablation_summary
from attnscope.present.circuit_text import circuit_summary, dissociation_table, units_table
from attnscope.present.views import dissociation_views

REPORT, SCREENED, BARE = (fake_circuit_report(kind) for kind in ("full", "screened", "bare"))


def test_every_part_is_there():
    text = printed(circuit_summary(REPORT))
    for part in ("Tasks", "Dissociation: 4 heads a circuit", "Largest effects, heads", "Largest effects, neurons",
                 "recall circuit ablated: accuracy on reasoning", "Faithfulness over circuit size"):  # fmt: skip
        assert part in text
    assert "Double dissociation of recall and reasoning at 1 of 2 levels: heads" in text
    assert HOSTILE_MODEL in text
    assert EDIT in text
    assert "no random control: too few other units" in text
    assert "Not measured" not in text


def test_a_report_without_optional_parts_says_why():
    text = printed(circuit_summary(BARE))
    assert "Accuracy over circuit size: no <b>circuit</b> was chosen" in text
    assert "Graph of edges: not asked for" in text
    assert "Dissociation:" not in text
    assert "Faithfulness over circuit size: not asked for" in text


def test_numbers_stand_in_their_rows():
    row = next(line for line in printed(units_table(REPORT, "head")).splitlines() if line.startswith("L2H5"))
    assert row.split()[:4] == ["L2H5", "1.91", "[1.81,", "2.02]"]
    assert row.split()[-1] == "recall"
    table = printed(dissociation_table(dissociation_views(REPORT)[0]))
    assert "55 [48, 62]" in table
    assert "+53 [+45.5, +60]" in table
    assert units_table(BARE, "neuron") is None
    assert "70 more" in printed(units_table(SCREENED, "head", top=20))


def test_markup_in_a_report_stays_text():
    info = REPORT.model.model_copy(update={"model_id": "[bold red]x[/bold red]\x1b[31m"})
    hostile = BARE.model_copy(update={"model": info, "missing": {"curves": "[link=x]y[/link]\u202e"}})
    text = printed(circuit_summary(hostile), colours=True)
    assert "[bold red]x[/bold red]\\x1b[31m" in text
    assert "[link=x]y[/link]\\u202e" in text
    assert "\u202e" not in text


def test_random_weights_are_said():
    model = REPORT.model.model_copy(update={"weights": "random", "weights_seed": 3})
    assert "never trained" in printed(circuit_summary(BARE.model_copy(update={"model": model})))
    assert "never trained" in printed(ablation_summary(ablation().model_copy(update={"model": model})))


@pytest.mark.parametrize("width", [80, 100])
def test_narrow_terminals_do_not_overflow(width):
    for summary in (circuit_summary(REPORT), circuit_summary(SCREENED), ablation_summary(ablation())):
        text = printed(summary, width)
        assert max(map(len, text.splitlines())) <= width


def test_an_ablation_is_told_beside_its_control():
    text = printed(ablation_summary(ablation()))
    assert "Mean ablation of L3H0, L3H2 on needle" in text
    assert (
        "accuracy goes from 90% to 40%; without as many random others it is 90%, mean of 2 draws: worse than every "
        "random draw."
    ) in text
    assert "there is no random control (too few other units)" in text
    assert "20 prompts" in text
    loose = ablation().model_copy(update={"layer_matched": False, "notes": ("[b]x[/b]",)})
    assert "nearest layers" in printed(ablation_summary(loose))
    assert "[b]x[/b]" in printed(ablation_summary(loose))


def test_a_change_whose_interval_includes_zero_is_not_called_worse():
    accuracy = ablation().metrics[0]
    interval = accuracy.change.interval.model_copy(update={"low": -0.1, "high": 0.1})
    change = accuracy.change.model_copy(update={"value": -0.01, "interval": interval})
    same = accuracy.model_copy(update={"after": accuracy.before, "change": change})
    text = printed(ablation_summary(ablation().model_copy(update={"metrics": (same,)})))
    assert "the interval of the change includes 0" in text
    assert "worse than" not in text
