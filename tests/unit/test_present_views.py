"""Views as data: no plotting library takes part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _fake_report import HOSTILE, N_PROMPTS, fake_report

from attnscope.core.errors import UnknownHeadError, UnknownNameError
from attnscope.core.report import Measured, Missing
from attnscope.present import views
from attnscope.present.tokens import visible

REPORT, STATISTICS = fake_report()
EVERY_VIEW = """
import sys
sys.path.insert(0, {folder!r})
from _fake_report import fake_report
from attnscope.present import views
report, statistics = fake_report()
views.head_grid(report), views.headline(report), views.summary_cards(report, statistics)
views.score_grids(report), views.missing_evidence(report), views.sink_table(report), views.sink_rates(report)
views.residual_norms(statistics), views.outlier_rows(report), views.labelled_profiles(report, statistics)
views.received_mass(report, statistics, "L0H0"), views.decode_view(report), views.causal_views(report)
views.provenance_view(report), views.rule_rows(report), views.heads_table(report), views.top_heads(report, "sink")
loaded = [name for name in ("plotly", "torch", "rich", "matplotlib", "streamlit") if name in sys.modules]
assert not loaded, loaded
"""


def test_views_load_no_plotting_library_and_no_torch():
    code = EVERY_VIEW.format(folder=str(Path(__file__).parent))
    subprocess.run([sys.executable, "-c", code], check=True)


def test_head_grid_holds_every_head_in_order():
    grid = views.head_grid(REPORT)
    assert [cell.name for cell in grid.cells] == [str(record.id) for record in REPORT.records]
    assert (grid.layers, grid.n_heads, grid.group_size) == (tuple(range(8)), 8, 4)
    cell = grid.row(3)[1]
    assert (cell.name, cell.primary, cell.mark, cell.kv_head, cell.role) == ("L3H1", "induction", "In", 0, "full")
    assert any(line.startswith("induction 0.9") and "≥ 0.5" in line for line in cell.hover)
    assert any("[" in line for line in cell.hover)


def test_the_most_specific_label_comes_first():
    for record in REPORT.records:
        order = [views.SPECIFICITY.index(name) for name in views.labels_of(record)]
        assert order == sorted(order)


def test_headline_counts_what_the_report_counts():
    counts = views.label_counts(REPORT)
    for label, count in counts.items():
        assert count == len(REPORT.heads_labelled(label))
    sentence = views.headline(REPORT)
    assert sentence.startswith(f"64 heads: {counts['sink']} sinks, ")
    assert "2 induction" in sentence
    assert "1 previous-token" in sentence
    assert sentence.endswith(f"{counts['unclassified']} unclassified")


def test_top_heads_are_ranked_by_the_score_of_their_rule():
    heads = views.top_heads(REPORT, "retrieval")
    assert [head.name for head in heads] == ["L5H0", "L5H3", "L6H7"]
    assert all(head.score == "retrieval" for head in heads)
    assert all(head.low <= head.value <= head.high for head in heads)
    assert views.top_heads(REPORT, "retrieval", 1) == heads[:1]
    assert views.top_heads(REPORT, "unclassified") == []


def test_a_score_that_was_not_measured_is_none_never_zero():
    grid = views.score_grid(REPORT, "recall_effect")
    assert not grid.measured
    assert grid.reason == "no recall facts: <b>the tokenizer splits them</b>"
    assert {value for row in grid.values for value in row} == {None}
    measured = views.score_grid(REPORT, "induction")
    assert measured.measured
    assert measured.values[3][1] == REPORT["L3H1"].scores["induction"].value
    assert measured.low[3][1] < measured.values[3][1] < measured.high[3][1]
    assert [grid.measured for grid in views.score_grids(REPORT)] == sorted(
        (grid.measured for grid in views.score_grids(REPORT)), reverse=True
    )


def test_missing_evidence_lists_what_some_or_all_heads_lack():
    items = {item.score: item for item in views.missing_evidence(REPORT)}
    assert set(items) == {"copying", "importance", "recall_effect", "reasoning_effect"}
    assert all(item.all_heads and item.heads == 64 for item in items.values())
    record = REPORT.records[0]
    scores = {**record.scores, "induction": Missing(reason="one head")}
    partly = REPORT.model_copy(update={"records": (record.model_copy(update={"scores": scores}), *REPORT.records[1:])})
    found = views.missing_evidence(partly)[-1]
    assert (found.score, found.heads, found.all_heads) == ("induction", 1, False)
    assert views.score_grid(partly, "induction").values[0][0] is None


def test_sink_table_joins_layers_and_makes_tokens_visible():
    rows = views.sink_table(REPORT)
    assert (rows[0].token, rows[0].position, rows[0].layer_text) == ("<s>", 0, "1–7")
    assert (rows[0].prompts, rows[0].of_prompts) == (N_PROMPTS, N_PROMPTS)
    tokens = {row.token_id: row.token for row in rows}
    assert tokens[5] == "↵⇥\\x1b[31m\\u202eright to left"
    assert tokens[7] == "␣the"
    assert len(tokens[6]) == 40
    assert len({(row.position, row.token_id) for row in rows}) == len(rows)


@pytest.mark.parametrize("text", [*HOSTILE.values(), "", " ", "\ud800", "a\u0301", "\u0301", "\u2028", "日本"])
def test_visible_text_is_one_printable_line(text):
    shown = visible(text)
    assert shown.isprintable()
    assert 1 <= len(shown) <= 120
    shown.encode("utf-8")


def test_sink_rates_come_by_length():
    rates = views.sink_rates(REPORT)
    assert [rate.length for rate in rates] == [64, 128, 512]
    assert all(isinstance(REPORT.sink_rate[rate.length], Measured) for rate in rates)
    assert rates[0].percent == REPORT.sink_rate[64].value


def test_residual_norms_start_at_the_embedding():
    norms = views.residual_norms(STATISTICS)
    assert norms.depths == (-1, *range(8))
    assert norms.first[0] == pytest.approx(5.0, rel=0.05)
    assert norms.first[3] == pytest.approx(53, rel=0.05)
    assert norms.largest_ratio[0] == 2
    absent = views.residual_norms({})
    assert isinstance(absent, Missing)
    assert "residual_norm" in absent.reason


def test_outliers_are_ranked():
    assert [row.dimension for row in views.outlier_rows(REPORT)] == [117, 42, 201]


def test_distance_profiles():
    profile = views.distance_profile(REPORT, STATISTICS, "L3H1")
    assert profile.bins[:4] == ("0", "1", "2–3", "4–7")
    assert profile.bins[-1] == "512+"
    assert sum(profile.mass) == pytest.approx(1)
    labels = [item.label for item in views.labelled_profiles(REPORT, STATISTICS)]
    assert labels == sorted(labels, key=views.SPECIFICITY.index)
    assert isinstance(views.distance_profile(REPORT, {}, "L3H1"), Missing)
    assert len(views.received_mass(REPORT, STATISTICS, "L3H1", positions=5)) == 5
    with pytest.raises(UnknownHeadError):
        views.distance_profile(REPORT, STATISTICS, "L9H9")


def test_decode_view_counts_roles():
    plan = views.decode_view(REPORT, context=680)
    assert plan.full + plan.streaming == 16
    assert plan.full / 16 == REPORT.decode.full_fraction
    assert plan.kept == pytest.approx(plan.full / 16 + plan.streaming / 16 * 0.1)
    assert f"{plan.streaming} of 16" in plan.sentence


def test_causal_views_compare_with_random_heads():
    induction, retrieval = views.causal_views(REPORT)
    assert induction.separated is True
    assert [bar.value for bar in induction.bars] == [0.97, 0.21, 0.95]
    assert "all 2 induction heads" in induction.sentence
    assert retrieval.heads == ("L5H0", "L5H3", "L6H7")


def test_rules_link_to_their_papers():
    rules = {rule.name: rule for rule in views.rule_rows(REPORT)}
    assert rules["induction"].url == "https://arxiv.org/abs/2209.11895"
    assert (rules["induction"].heads, rules["induction"].threshold) == (2, 0.5)
    assert rules["positional"].url is None


def test_provenance_names_the_run():
    facts = dict(views.provenance_view(REPORT).facts)
    assert facts["Seed"] == "0"
    assert facts["Kernels"] == "tiled"
    assert "Revision" not in facts


def test_heads_table_filters_sorts_and_cuts():
    rows = views.heads_table(REPORT, label="retrieval")
    assert [row.name for row in rows] == ["L5H0", "L5H3", "L6H7"]
    top = views.heads_table(REPORT, sort="induction", top=2)
    assert [row.name for row in top] == ["L3H1", "L4H6"]
    assert top[0].scores["recall_effect"] is None
    assert len(views.heads_table(REPORT)) == 64
    with pytest.raises(UnknownNameError, match="induction"):
        views.heads_table(REPORT, label="inducton")
    with pytest.raises(UnknownNameError):
        views.heads_table(REPORT, sort="nothing like it")


def test_views_of_a_report_without_anything_optional():
    bare = REPORT.model_copy(update={"sinks": (), "outlier_dimensions": (), "causal_checks": (), "sink_rate": {}})
    cards = {card.title: card.value for card in views.summary_cards(bare, {})}
    assert cards["Sink rate"] == cards["Strongest sink"] == cards["First token's norm"] == "—"
    assert views.causal_views(bare) == views.sink_rates(bare) == views.sink_table(bare) == []
    assert views.labelled_profiles(bare, {}) == []
