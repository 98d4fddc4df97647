"""Views of a retrieval report as data: no plotting library takes part, and nothing is said beyond the control."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _fake_retrieval_report import HEADS, LAYERS, PLANTED, REASON, fake_retrieval_report, ranked, share
from _fake_sink_report import estimate

from attnscope.core.report import Missing
from attnscope.present import views
from attnscope.present.views.points import Point
from attnscope.present.views.retrieval_curves import Compared
from attnscope.present.wording import percent

REPORT, BARE = fake_retrieval_report(), fake_retrieval_report(bare=True)
EVERY_VIEW = """
import sys
sys.path.insert(0, {folder!r})
from _fake_retrieval_report import fake_retrieval_report
from attnscope.present import views
report = fake_retrieval_report()
views.needle_grid(report), views.head_lines(report), views.stability_view(report), views.retrieval_grids(report)
views.agreement_rows(report), views.ablation_lines(report), views.budget_lines(report)
views.retrieval_headline(report), views.retrieval_sentences(report), views.retrieval_missing(report)
loaded = [name for name in ("plotly", "torch", "rich", "matplotlib", "streamlit") if name in sys.modules]
assert not loaded, loaded
"""


def test_views_load_no_plotting_library_and_no_torch():
    subprocess.run([sys.executable, "-c", EVERY_VIEW.format(folder=str(Path(__file__).parent))], check=True)


def test_needles_are_depths_by_lengths_and_an_empty_cell_is_none():
    grid = views.needle_grid(REPORT)
    assert grid.lengths == (512, 1024, 2048, 4096)
    assert grid.depths == (0.0, 0.25, 0.5, 0.75, 1.0)
    held = {(c.length, c.depth): c.accuracy.value for c in REPORT.cells}
    for depth, row in zip(grid.depths, grid.cells, strict=True):
        for length, cell in zip(grid.lengths, row, strict=True):
            assert cell.value == held.get((length, depth))
    assert grid.cells[1][3].reason == "no needle was given here"
    assert grid.weakest[1:] == (4096, 0.5)
    assert views.needle_grid(REPORT.model_copy(update={"cells": ()})) is None


def test_heads_come_by_score_and_those_without_one_last():
    lines = views.head_lines(REPORT)
    assert [(line.layer, line.head) for line in lines[: len(PLANTED)]] == list(PLANTED)
    assert [line.certain for line in lines[: len(PLANTED)]] == [True] * 5 + [False]
    assert [line.above for line in lines[: len(PLANTED) + 1]] == [True] * len(PLANTED) + [False]
    assert [line.above for line in lines[-HEADS:]] == [None] * HEADS
    assert len(views.top_lines(REPORT)) == 20
    assert views.top_lines(BARE) == []


def test_every_measure_is_a_grid_and_what_was_not_measured_is_none():
    grids = {grid.score: grid for grid in views.retrieval_grids(REPORT)}
    assert list(grids) == [
        "retrieval", "retrieval_decoded", "razor_echo", "razor_induction", "vertical_slash_mass", "qr_score",
    ]  # fmt: skip
    assert grids["retrieval"].values[0] == (None,) * HEADS
    assert grids["retrieval"].values[6][4] == 0.71
    assert (grids["qr_score"].measured, grids["qr_score"].reason) == (False, REASON)
    assert len(grids["razor_echo"].values) == LAYERS
    assert views.retrieval_grids(REPORT.model_copy(update={"heads": ()})) == []


def test_agreement_names_measures_and_keeps_what_cannot_be_computed():
    rows = views.agreement_rows(REPORT)
    assert [row.second for row in rows] == ["Retrieval while decoding", "Razor echo", "<i>other</i>"]
    assert [row.spearman for row in rows] == [0.91, 0.22, None]


def test_lines_are_in_order_and_the_untouched_model_is_recovered():
    zero, uniform = views.ablation_lines(REPORT)
    assert [point.x for point in zero.points] == [1, 2, 4, 8, 16]
    assert zero.points[2].heads == tuple(ranked()[:4])
    assert all(point.whole == pytest.approx(1.0) for line in (zero, uniform) for point in line.points)
    short, long = views.budget_lines(REPORT)
    assert (short.title, long.title) == ("1,024 tokens", "4,096 tokens")
    assert all(point.whole == pytest.approx(0.9) for point in long.points)
    assert views.ablation_lines(BARE) == views.budget_lines(BARE) == []


def compared(value, draws, ours=0.02, control=0.02, higher=False):
    mean = sum(draws) / len(draws) if draws else None
    return Compared(
        x=4,
        heads=("L0H0",) * 4,
        accuracy=Point(value, value - ours, value + ours, 9) if ours else Point(value, n=9),
        change=Point(value - 1),
        control=Point(None, reason="none left") if mean is None else Point(mean, mean - control, mean + control, 9),
        draws=tuple(draws),
        higher=higher,
    )


@pytest.mark.parametrize(
    ("item", "apart", "verdict"),
    [
        (compared(0.1, [0.9, 0.95]), True, "below every random choice"),
        (compared(0.92, [0.9, 0.95]), False, "not below every random choice"),
        (compared(0.9, [0.9, 0.95]), False, "not below every random choice"),
        (compared(0.88, [0.9, 0.9]), False, "below every random choice, but the intervals overlap"),
        (compared(0.1, [0.9], ours=0), None, "below every random choice, without intervals to compare"),
        (compared(0.1, []), None, "no random control"),
        (compared(0.9, [0.1, 0.3], higher=True), True, "above every random choice"),
        (compared(0.2, [0.1, 0.3], higher=True), False, "not above every random choice"),
    ],
)
def test_a_measurement_is_apart_only_beyond_every_draw_and_its_interval(item, apart, verdict):
    assert (item.apart, item.verdict) == (apart, verdict)


def test_the_summary_says_what_the_report_says():
    assert views.retrieval_headline(REPORT) == (
        "6 of 88 measured heads retrieve (score ≥ 0.1): L6H4, L5H0, L8H2, L9H7, L4H1, L10H3"
    )
    answered, certain, zero, uniform, budget, stable = views.retrieval_sentences(REPORT)
    assert answered.startswith("The model answers 40 of 48 needles, each among 3 others.")
    assert "4,096 tokens, depth 50%: 61% [53%, 69%]" in answered
    assert certain.startswith("For 5 of the 6 heads the whole interval is at or above 0.1. While decoding, 6 of 6")
    assert zero.startswith(
        "Without the first 4 heads, accuracy on 48 needles falls from 100% to 0% [0%, 7%], below every"
    )
    assert "without 4 random others it is 98.2%" in zero
    assert "includes 0, not below every random choice; with 4 random others" in uniform
    assert "at 4,096 tokens is 25%: 90% [84%, 96%] (above every random choice), against 90% with all full" in budget
    assert "settled from 17 of 40" in stable


def test_a_change_that_random_heads_make_too_is_not_called_a_fall():
    kept = REPORT.curve[5].model_copy(update={"change": estimate(-0.01, 0.02), "control_draws": (0.9,)})
    (sentence,) = [
        s for s in views.retrieval_sentences(REPORT.model_copy(update={"curve": (kept,)})) if "accuracy on" in s
    ]
    assert "falls" not in sentence
    assert "not below every random choice" in sentence
    alone = REPORT.curve[0].model_copy(update={"control": Missing(reason="no heads left"), "control_draws": ()})
    text = " ".join(views.retrieval_sentences(REPORT.model_copy(update={"curve": (alone,)})))
    assert "there is no random control (no heads left)" in text


def test_no_heads_no_answers_and_no_needles_are_told_apart():
    assert views.retrieval_headline(BARE) == "The model answered 0 of 48 needles, so no head has a retrieval score"
    assert views.retrieval_sentences(BARE) == []
    none = BARE.model_copy(update={"n_needles": 0})
    assert views.retrieval_headline(none) == "No needle was given, so no head has a retrieval score"
    other = BARE.model_copy(update={"n_answered": 3})
    assert views.retrieval_headline(other).startswith("No head has a retrieval score: the model answered")
    high = REPORT.model_copy(update={"threshold": 0.9})
    assert views.retrieval_headline(high) == (
        "None of 88 measured heads retrieves (score ≥ 0.9); the highest score is 0.710, L6H4"
    )
    one = REPORT.model_copy(update={"heads": REPORT.heads[HEADS:], "threshold": 0.6})
    assert views.retrieval_headline(one) == "1 of 88 heads retrieves (score ≥ 0.6): L6H4"
    assert views.retrieval_headline(REPORT.model_copy(update={"threshold": 0.0})).endswith("and 82 more")


def test_a_ranking_that_settles_late_is_said_to_be_late():
    stable = views.stability_view(REPORT)
    assert stable.early
    late = REPORT.model_copy(update={"stability": REPORT.stability.model_copy(update={"settled": 39})})
    assert not views.stability_view(late).early
    assert "which is late" in views.stability_view(late).sentence
    assert views.stability_view(BARE) == BARE.stability


def test_a_budget_counts_only_if_all_larger_ones_keep_the_accuracy_too():
    def told(values, whole=1.0):
        held = tuple(
            REPORT.budgets[1].model_copy(
                update={"budget": budget, "accuracy": share(value), "change": estimate(value - whole)}
            )
            for budget, value in zip((0.1, 0.2, 0.3), values, strict=True)
        )
        return next(s for s in views.retrieval_sentences(REPORT.model_copy(update={"budgets": held})) if "KV" in s)

    assert "at 1,024 tokens is 30%" in told((0.97, 0.5, 0.96))
    assert told((0.2, 0.3, 0.4)).startswith("No measured share of full KV heads keeps 95%")
    assert "nothing to lose" in told((0.0, 0.0, 0.0), whole=0.0)


def test_what_is_missing_gives_its_reason_and_the_command():
    told = dict(views.retrieval_missing(BARE))
    assert told["Accuracy without heads"] == "no head has a <b>score</b>; made by `attnscope retrieval`"
    assert told["Accuracy with few full KV heads"].startswith("--no-budgets was <b>given</b>; made by")
    assert told["QR score, every head"] == "the model answered <b>no</b> needle"
    assert dict(views.retrieval_missing(REPORT)) == {
        "Retrieval, answer given, 8 of 96 heads": "layer 0 <b>streams</b>",
        "QR score, every head": REASON,
        "Vertical and slash, 12 of 96 heads": "one block",
    }
    silent = BARE.model_copy(update={"budgets_missing": None})
    assert "does not say why" in dict(views.retrieval_missing(silent))["Accuracy with few full KV heads"]


def test_a_share_short_of_all_is_never_written_as_all():
    for value in (0.9996, 0.99951, 0.99999):
        assert percent(value) != "100%"
    assert percent(1.0) == "100%"
    assert percent(0.0004) != "0%"
