"""Terminal text of a retrieval report: its text is never markup, missing is never 0, narrow terminals work."""

from __future__ import annotations

import pytest
from _fake_report import HOSTILE_MODEL
from _fake_retrieval_report import fake_retrieval_report
from test_present_text import printed

from attnscope.present.retrieval_text import needles_table, retrieval_heads_table, retrieval_summary

REPORT, BARE = fake_retrieval_report(), fake_retrieval_report(bare=True)


def test_every_part_is_there():
    text = printed(retrieval_summary(REPORT))
    for part in ("Needles answered", "Highest heads", "Agreement of measures", "Ablated, zero", "Ablated, uniform",
                 "KV heads full, 4,096 tokens", "Not measured"):  # fmt: skip
        assert part in text
    assert "6 of 88 measured heads retrieve (score ≥ 0.1): L6H4" in text
    assert "without 4 random others it is 98.2%" in " ".join(text.split())
    assert HOSTILE_MODEL in text
    assert "no random control: too few <b>other</b> heads" in text
    assert "layer 0 <b>streams</b>" in text


def test_markup_in_a_report_stays_text():
    info = REPORT.model.model_copy(update={"model_id": "[bold red]x[/bold red]\x1b[31m"})
    hostile = REPORT.model_copy(update={"model": info, "curve": (), "curve_missing": "[link=x]y[/link]\u202e"})
    text = printed(retrieval_summary(hostile), colours=True)
    assert "[bold red]x[/bold red]\\x1b[31m" in text
    assert "[link=x]y[/link]\\u202e" in text
    assert "\u202e" not in text


def test_no_answered_needle_is_said_plainly_and_why_the_rest_is_missing():
    text = printed(retrieval_summary(BARE))
    assert "The model answered 0 of 48 needles, so no head has a retrieval score" in text
    assert "no head has a <b>score</b>; made by `attnscope retrieval`" in text
    assert "--no-budgets was <b>given</b>; made by `attnscope retrieval`" in text
    assert "Ablated" not in text


def test_what_was_not_measured_is_a_dash():
    row = next(line for line in printed(needles_table(REPORT)).splitlines() if line.startswith("4,096".rjust(6)))
    assert row.split() == ["4,096", "100%", "—", "61%", "80.5%", "100%"]
    head = next(line for line in printed(retrieval_heads_table(REPORT)).splitlines() if line.startswith("L5H0"))
    assert head.split()[-1] == "—"
    assert f"{96 - 3} more in retrieval.parquet" in printed(retrieval_heads_table(REPORT, top=3))
    assert needles_table(BARE.model_copy(update={"cells": ()})) is None


def test_random_weights_are_said():
    model = REPORT.model.model_copy(update={"weights": "random", "weights_seed": 3})
    assert "never trained" in printed(retrieval_summary(REPORT.model_copy(update={"model": model})))


@pytest.mark.parametrize("width", [80, 100])
def test_narrow_terminals_do_not_overflow(width):
    text = printed(retrieval_summary(REPORT), width)
    assert max(map(len, text.splitlines())) <= width
    assert "L6H4" in text
