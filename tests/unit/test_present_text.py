"""Terminal text: token text is never markup, missing is never 0, narrow terminals work."""

from __future__ import annotations

import io

import pytest
from _fake_report import HOSTILE_MODEL, fake_report
from rich.console import Console

from attnscope.core.errors import UnknownNameError
from attnscope.present.text import heads_table, summary

REPORT, STATISTICS = fake_report()


def printed(item, width: int = 140, colours: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colours, color_system="truecolor" if colours else None
    )
    console.print(item)
    return console.file.getvalue()


def test_summary_says_what_the_report_says():
    text = printed(summary(REPORT, {"page": "runs/[bold]x[/bold]/report.html"}))
    assert HOSTILE_MODEL in text
    assert "64 heads: " in text
    assert "L3H1 0.9" in text
    assert "apart from random heads" in text
    assert "recall_effect (all heads): no recall facts: <b>" in text
    assert "runs/[bold]x[/bold]/report.html" in text


def test_hostile_tokens_stay_text():
    text = printed(summary(REPORT), width=200, colours=True)
    assert "[bold red]markup[/bold red]" in text
    assert "\x1b[31m" not in text
    assert "\u202e" not in text


def test_heads_table_rows_and_missing_values():
    text = printed(heads_table(REPORT, label="retrieval"))
    assert [line.split()[0] for line in text.splitlines()[-4:-1]] == ["L5H0", "L5H3", "L6H7"]
    assert "3 of 64 heads labelled retrieval" in text
    effects = printed(heads_table(REPORT, sort="recall_effect", top=1))
    assert "—" in effects
    with pytest.raises(UnknownNameError):
        heads_table(REPORT, sort="nothing")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_narrow_terminals_do_not_overflow(width):
    text = printed(summary(REPORT), width) + printed(heads_table(REPORT), width)
    assert max(map(len, text.splitlines())) <= width
    assert "L7H7" in text


def test_random_weights_are_said_and_given_ones_are_not():
    model = REPORT.model.model_copy(update={"weights": "random", "weights_seed": 2})
    random = REPORT.model_copy(update={"model": model})
    for item in (summary, heads_table):
        assert "Random weights (seed 2): this model was never trained." in printed(item(random))
        assert "andom weights" not in printed(item(REPORT))
