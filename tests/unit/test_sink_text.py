"""Terminal text of a sink report: token text is never markup, missing is never 0, narrow terminals work."""

from __future__ import annotations

import pytest
from _fake_sink_report import fake_sink_report
from test_present_text import printed

from attnscope.present.sink_text import sink_summary, sinks_table

REPORT, BARE = fake_sink_report(), fake_sink_report(bare=True)


def test_every_part_is_there():
    text = printed(sink_summary(REPORT))
    for part in ("Sinks", "Levels", "Without the writes", "Residual sinks", "Interventions", "Quantisation"):
        assert part in text
    assert "39 sinks in 16 prompts" in text
    assert "[bold red]markup[/bold red]" in text
    assert "not above every random control" in text


def test_what_was_not_measured_says_so():
    line = next(line for line in printed(sinks_table(REPORT)).splitlines() if "attention only" in line)
    assert line.split()[-5:-2] == ["—", "—", "—"]
    assert "0.188" in line
    bare = printed(sink_summary(BARE))
    assert "not measured: LayerNorm <b>only</b>" in bare
    assert "unless --no-interventions is given" in bare


@pytest.mark.parametrize("width", [80, 100])
def test_narrow_terminals_do_not_overflow(width):
    text = printed(sink_summary(REPORT), width)
    assert max(map(len, text.splitlines())) <= width
    assert "MLP 2" in text


def test_a_long_list_is_cut_and_says_so():
    assert f"{9 - 3} more in sinks.parquet" in printed(sinks_table(REPORT, top=3))
