"""Views of a circuit report as data: no plotting library takes part, and nothing is said beyond the control."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _fake_circuit_report import (
    EDIT,
    HEADS,
    HELPS,
    LAYERS,
    NEURONS,
    PLANTED,
    REASON,
    TASKS,
    fake_circuit_report,
    head_effects,
)
from _fake_report import fake_info

from attnscope.core.circuit_report import CircuitReport, UnitDrop
from attnscope.core.errors import StatisticsError
from attnscope.core.report import Missing
from attnscope.present import views
from attnscope.present.views.circuit_graph import _spread
from attnscope.present.views.circuit_units import chosen_units
from attnscope.reports.circuit_quality import circuit_quality, faithfulness_curve, top_edges
from attnscope.reports.circuit_statistics import effect_statistics
from attnscope.reports.circuit_tests import circuit_drop, controlled, transfer
from attnscope.reports.circuits import circuit_task, level_result, named

REPORT, SCREENED, BARE = (fake_circuit_report(kind) for kind in ("full", "screened", "bare"))
EVERY_VIEW = """
import sys
sys.path.insert(0, {folder!r})
from _fake_circuit_report import fake_circuit_report
from attnscope.present import views
report = fake_circuit_report()
views.circuit_headline(report), views.circuit_sentences(report), views.circuit_missing(report)
views.unit_scatter(report), views.effect_grids(report), views.top_units(report, "head"), views.circuit_graphs(report)
views.dissociation_views(report), views.circuit_lines(report, "head"), views.transfer_rows(report)
views.faithfulness_lines(report), views.quality_rows(report), views.overlap_rows(report)
loaded = [name for name in ("plotly", "torch", "rich", "matplotlib", "streamlit") if name in sys.modules]
assert not loaded, loaded
"""


def test_views_load_no_plotting_library_and_no_torch():
    subprocess.run([sys.executable, "-c", EVERY_VIEW.format(folder=str(Path(__file__).parent))], check=True)


def test_units_come_by_effect_with_every_number_of_the_analysis():
    found, lines = head_effects(), views.unit_lines(REPORT, "head")
    assert [line.name for line in lines[:4]] == ["L2H5", "L3H2", "L4H1", "L5H6"]
    for line in lines:
        for task in TASKS:
            drop, at = line.drops[task], (line.layer, line.index)
            own = found[task]
            assert (drop.point.value, drop.point.low, drop.p, drop.q) == (
                own.mean[at], own.low[at], own.p[at], own.q[at],
            )  # fmt: skip
    assert lines[0].chosen == ("recall",)
    assert lines[0].drops["recall"].shown is True
    assert lines[0].drops["reasoning"].shown is False
    assert 0 <= lines[0].scores["copying"].value <= 1
    assert views.unit_lines(BARE, "neuron") == []


def test_neurons_kept_are_the_largest_but_all_are_counted():
    level = REPORT.level("neuron")
    assert (len(level.units), level.n_units, level.n_exact) == (40, LAYERS * NEURONS, LAYERS * NEURONS)
    assert {"L2N7", "L3N40", "L7N21"} <= {unit.unit for unit in level.units}
    assert level.n_shown["recall"] >= 2


def test_the_scatter_groups_heads_by_circuit():
    view = views.unit_scatter(REPORT)
    groups = {title: [line.name for line in lines] for title, lines in view.groups}
    assert {"L2H5", "L4H1"} <= set(groups["recall circuit"])
    assert {"L3H2", "L5H6"} <= set(groups["reasoning circuit"])
    assert sum(map(len, groups.values())) == LAYERS * HEADS
    assert view.named == set(groups["recall circuit"]) | set(groups["reasoning circuit"])
    assert set(chosen_units(REPORT, "head")) == set(TASKS)
    screened = views.unit_scatter(SCREENED)
    assert [(title, len(lines)) for title, lines in screened.groups][:1] == [("heads", 10)]
    assert "L2H5" in screened.named
    assert views.unit_scatter(BARE) is None


def test_grids_hold_both_effects_their_difference_and_the_screen():
    grids = {grid.title: grid for grid in views.effect_grids(REPORT)}
    assert list(grids) == ["Effect on recall", "Effect on reasoning", "Recall minus reasoning"]
    recall, difference = grids["Effect on recall"].values, grids["Recall minus reasoning"].values
    assert recall[HELPS[0]][HELPS[1]] == pytest.approx(-0.3, abs=0.05)
    assert difference[2][5] == pytest.approx(recall[2][5] - grids["Effect on reasoning"].values[2][5])
    assert grids["Effect on recall"].units == "nat"
    screened = {grid.title: grid for grid in views.effect_grids(SCREENED)}
    assert screened["Effect on recall"].values[0][1] is None
    assert None not in screened["atp on recall"].values[0]
    assert [grid.title for grid in views.effect_grids(BARE)] == ["Effect on recall"]


def test_a_dissociation_keeps_drops_draws_and_its_verdict():
    heads, neurons = views.dissociation_views(REPORT)
    assert (heads.verdict, heads.double) == ("double dissociation", True)
    assert [bar.drop.value for bar in heads.bars] == pytest.approx([0.55, 0.02, 0.42, 0.015])
    assert [len(bar.draws) for bar in heads.bars] == [5, 5, 5, 5]
    assert [side.certain for side in heads.sides] == [True, True]
    assert neurons.verdict == "only the recall circuit is selective"
    assert neurons.sides[1].verdict == "not selective by these thresholds"
    assert neurons.bars[2].draws == ()
    assert "at least 15 points" in heads.sentence


def test_curves_are_one_line_a_circuit_and_task():
    lines = views.circuit_lines(REPORT, "head")
    assert [line.title for line in lines][:2] == [
        "recall circuit ablated: accuracy on recall",
        "recall circuit ablated: accuracy on reasoning",
    ]
    assert [point.x for point in lines[0].points] == [1, 2, 4, 8]
    assert lines[0].points[3].draws == ()
    assert lines[0].points[0].whole == pytest.approx(0.92)
    assert lines[0].points[1].apart is True
    assert views.circuit_lines(REPORT, "layer") == []


def test_the_summary_says_no_more_than_was_found():
    text = " ".join(views.circuit_sentences(REPORT))
    assert views.circuit_headline(REPORT) == "Double dissociation of recall and reasoning at 1 of 2 levels: heads"
    assert "without the recall circuit, recall loses 55 [48, 62] points and reasoning 2 [0.5, 4]" in text.lower()
    assert "as many random others: 4.4 and 4" in text
    assert "(no random control)" in text
    assert f"{EDIT}, taken from recall: reasoning goes from 50% to 52%" in text
    assert "there is no random control (too few other units)" in text
    none = REPORT.model_copy(update={"dissociations": REPORT.dissociations[1:]})
    assert views.circuit_headline(none) == "No double dissociation of recall and reasoning (neurons)"
    assert views.circuit_headline(SCREENED) == "Largest effects on recall and reasoning: L2H5, L3H2, L4H1"
    assert "Of the 10 of 80 heads ablated one by one" in " ".join(views.circuit_sentences(SCREENED))
    empty = BARE.model_copy(update={"levels": ()})
    assert views.circuit_headline(empty) == "No effect was measured on recall"


def test_what_is_missing_is_listed_with_its_reason():
    assert views.circuit_missing(REPORT) == []
    assert ("Effect on recall, 70 of 80 heads", REASON) in views.circuit_missing(SCREENED)
    bare = dict(views.circuit_missing(BARE))
    assert bare["Accuracy over circuit size"] == "no <b>circuit</b> was chosen"
    assert bare["Effects of neurons"] == "not asked for"
    assert bare["recall: corrupt prompts"] == "no corrupt prompts were run"


def test_quality_overlap_and_faithfulness_keep_the_numbers():
    row = views.quality_rows(REPORT)[0]
    assert row.worst == ("the last head", pytest.approx(0.3))
    assert row.least == ("L7H7", 0.2)
    assert row.faithfulness == pytest.approx(2.8 / 3.0)
    (overlap,) = views.overlap_rows(REPORT)
    assert overlap.expected == pytest.approx(64 / 80)
    recall, reasoning = views.faithfulness_lines(REPORT)
    assert recall.values[-1] == pytest.approx(1.0)
    assert recall.cpr > reasoning.cpr
    assert len(recall.control) == 10
    assert reasoning.control == ()


def test_the_graph_is_layered_and_no_two_nodes_share_a_place():
    recall, reasoning = views.circuit_graphs(REPORT)
    assert recall.rows[0] == "embedding"
    assert recall.rows[-1] == "logits"
    assert recall.rows.index("attention 2") < recall.rows.index("MLP 2") < recall.rows.index("attention 4")
    assert all(edge.source.y < edge.target.y for edge in recall.edges)
    assert recall.edges[0].weight == 1
    places = {(node.x, node.y) for node in recall.nodes}
    assert len(places) == len(recall.nodes)
    assert len(reasoning.edges) == 4
    (few, _) = views.circuit_graphs(REPORT, most=2)
    assert len(few.edges) == 2


@pytest.mark.parametrize("wanted", [[0.0], [-0.9, -0.8, 0.9], [0.8, 0.85, 0.95], list(np.linspace(-0.9, 0.9, 30))])
def test_nodes_of_a_row_keep_their_order_and_stay_inside(wanted):
    columns = _spread(wanted)
    assert len(columns) == len(wanted)
    assert all(b - a >= min(0.3, 2 / len(wanted)) - 1e-9 for a, b in itertools.pairwise(columns))
    assert max(columns) <= 1 + 1e-9
    assert min(columns) >= -1.2


def test_parts_refuse_what_does_not_fit_and_keep_what_is_missing():
    info = fake_info(LAYERS, HEADS, 4)
    with pytest.raises(StatisticsError, match="one shape"):
        level_result(info, "head", {}, metric="m", ablation="zero")
    assert circuit_task("t", None, np.zeros(3)).accuracy == Missing(reason="right answers were not counted")
    assert circuit_task("t", np.ones(3), np.zeros(3), lengths=(4, 5, 4)).length is None
    units = named(info, "head", (LAYERS, HEADS), [(9, 7), (0, 1)])
    assert list(map(str, units)) == ["L9H7", "L0H1"]
    item = circuit_drop("head", "effect", "a", "b", units, np.ones(4), np.array([1.0, 0, 1, 1]), None)
    assert (item.change.value, item.control.kind) == (-0.25, "missing")
    flat = faithfulness_curve("t", "head", "r", (0.1, 1.0), np.array([1.0, 1.0]), empty=1.0, whole=1.0)
    assert (flat.faithfulness, flat.cpr) == ((None, None), None)
    assert circuit_quality("t", "head", units, "m", 1.0, 1.0, 1.0).faithfulness is None
    control, draws = controlled(np.array([[1.0, np.nan], [0.0, 0.5]]))
    assert draws == (1.0, 0.25)
    assert control.value == 0.5
    assert transfer("e", "a", "b", units, np.zeros(8), np.ones(8)).p == 2 / 256
    assert [edge.score for edge in top_edges("t", [("a", "b", 0.1), ("b", "c", -0.5), ("c", "d", 0.3)], most=2)] == [
        -0.5,
        0.3,
    ]


def test_the_report_holds_the_drops_of_the_planted_heads():
    units = {unit.unit: unit for unit in REPORT.level("head").units}
    for task in TASKS:
        for (layer, head), size in PLANTED[task].items():
            drop = units[f"L{layer}H{head}"].effects[task]
            assert isinstance(drop, UnitDrop)
            assert drop.value == pytest.approx(size, abs=0.15)
            assert drop.q < 0.01
    assert isinstance(REPORT, CircuitReport)


@pytest.mark.parametrize(
    ("level", "shape"), [("head", (LAYERS, HEADS)), ("layer", (LAYERS, 2)), ("neuron", (LAYERS, 5))]
)
def test_the_arrays_behind_it_are_kept_with_names_and_units(level, shape):
    edited = np.random.default_rng(0).standard_normal((3, *shape))
    kept = effect_statistics(fake_info(LAYERS, HEADS, 4), level, "recall", np.ones(3), edited, "loss", "nat", edited[0])
    assert kept.edited.shape == edited.shape
    assert kept.edited.attrs["units"] == "nat"
    assert kept.attrs["task"] == "recall"
    if level == "layer":
        np.testing.assert_array_equal(kept.edited.sel(side="mlp", block=2), edited[:, 2, 1])
    with pytest.raises(StatisticsError, match="shape"):
        effect_statistics(fake_info(LAYERS + 1, HEADS, 4), level, "recall", np.ones(3), edited, "loss")
