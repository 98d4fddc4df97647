"""Views of a sink report as data: no plotting library takes part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _fake_sink_report import HEADS, LAYERS, fake_sink_report

from attnscope.core.report import Missing
from attnscope.core.sink_report import AttentionEvidence
from attnscope.present import views
from attnscope.present.views.effects import Effect
from attnscope.present.views.sink_map import by_block

REPORT, BARE = fake_sink_report(), fake_sink_report(bare=True)
EVERY_VIEW = """
import sys
sys.path.insert(0, {folder!r})
from _fake_sink_report import fake_sink_report
from attnscope.present import views
report = fake_sink_report()
views.sink_maps(report), views.level_rows(report), views.service_grids(report), views.weakening_rows(report)
views.writer_views(report), views.write_views(report), views.residual_sink_view(report), views.sink_groups(report)
views.trace_rows(report), views.dormant_view(report), views.sink_headline(report), views.sink_sentences(report)
loaded = [name for name in ("plotly", "torch", "rich", "matplotlib", "streamlit") if name in sys.modules]
assert not loaded, loaded
"""


def test_views_load_no_plotting_library_and_no_torch():
    subprocess.run([sys.executable, "-c", EVERY_VIEW.format(folder=str(Path(__file__).parent))], check=True)


def test_a_map_holds_the_sinks_of_one_prompt_and_what_was_not_measured_is_none():
    first = views.sink_maps(REPORT)[0]
    held = [sink for sink in REPORT.sinks if sink.prompt == first.prompt]
    assert [column.position for column in first.columns] == sorted(sink.position for sink in held)
    primary = first.columns[0]
    assert primary.residual_layers == tuple(range(2, 11))
    assert primary.shares == held[0].attention.share_by_layer
    short = next(column for column in first.columns if column.kind == "short-lived")
    assert set(short.shares) == {None}
    assert short.reason == "too few queries see it"
    only = next(column for column in first.columns if column.kind == "attention only")
    assert only.residual_layers == ()
    assert views.sink_maps(REPORT, limit=1, columns=2)[0].hidden == len(held) - 2


def test_traces_have_the_fullest_levels_in_order_and_the_other_tokens_last():
    rows = views.trace_rows(REPORT)
    assert [row.kind for row in rows] == ["primary", "secondary", "short-lived", None]
    assert rows[-1].name == "other tokens"
    assert [row.kind for row in views.trace_rows(REPORT, most=1)] == ["primary", None]
    assert rows[0].norm[2:11] == (480.0,) * 9
    assert rows[0].cosine[1] == 0.1
    assert views.trace_rows(BARE) == []


def test_dormancy_by_prompt_shows_the_heads_that_differ_most_and_what_is_missing_stays_none():
    view = views.dormant_view(REPORT, most=5)
    assert view is not None
    ranges = [max(v for v in row if v is not None) - min(v for v in row if v is not None) for row in view.values]
    assert ranges == sorted(ranges, reverse=True)
    assert len(view.heads) == 5
    assert view.hidden == (LAYERS - 1) * HEADS - 5
    assert all(row[-1] is None for row in view.values)
    assert not any(name.startswith("L0H") for name in view.heads)
    told = {f"L{h.layer}H{h.head}": [v for v in h.dormant_by_prompt if v is not None] for h in REPORT.heads}
    widest = max(told, key=lambda name: max(told[name], default=0) - min(told[name], default=0))
    assert view.heads[0] == widest
    assert views.dormant_view(BARE) is None


def test_the_fullest_prompts_come_first():
    counts = [len(item.columns) for item in views.sink_maps(REPORT)]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 12


def test_values_of_attention_layers_are_put_at_their_blocks():
    model = REPORT.model.model_copy(update={"attention_layers": (3, 7)})
    values = by_block(model, (0.1, 0.2))
    assert len(values) == LAYERS
    assert (values[3], values[7], values[0]) == (0.1, 0.2, None)


def test_levels_say_when_attention_was_not_measured():
    rows = views.level_rows(REPORT)
    assert [(row.kind, row.blocks) for row in rows] == [
        ("primary", "2–10"), ("secondary", "6–10"), ("short-lived", "8–9"),
    ]  # fmt: skip
    assert [row.measured for row in rows] == [True, True, False]
    assert rows[1].tokens[1][0] == "↵"


def test_contributions_of_a_level_sum_to_its_norm():
    for view, row in zip(views.writer_views(REPORT), views.level_rows(REPORT), strict=True):
        assert sum(view.along) == pytest.approx(row.norm)
        assert view.norm == pytest.approx(row.norm)
        assert min(view.along) < 0
    view = views.writer_views(REPORT, most=3)[0]
    assert len(view.modules) == 3
    assert view.modules[-1] == "4 others"
    assert sum(view.along) == pytest.approx(480)
    assert view.writer == "MLP 2 (16 of 16 sinks)"


def test_a_change_is_apart_only_above_every_draw_of_every_control():
    first, second = views.write_views(REPORT)
    assert first.effect.apart is True
    assert second.effect.apart is False
    assert second.effect.verdict == "not above every random control"
    assert Effect("x", 1.0, None, None, (("draws", ()),)).apart is None
    assert [point.factor for point in first.curve] == sorted(point.factor for point in first.curve)


def test_heads_that_were_not_measured_are_none():
    grids = {grid.score: grid for grid in views.service_grids(REPORT)}
    assert set(grids) == {"dormant", "primary_share", "secondary_share"}
    assert grids["dormant"].values[0] == (None,) * HEADS
    assert grids["dormant"].values[5][2] == pytest.approx(grids["primary_share"].values[5][2] ** 2)
    silent = [h.model_copy(update={"dormant": Missing(reason="why")}) for h in REPORT.heads]
    grid = views.service_grids(REPORT.model_copy(update={"heads": tuple(silent)}))[-1]
    assert (grid.score, grid.measured, grid.reason) == ("dormant", False, "why")


def test_weakening_keeps_the_reason_of_a_missing_share():
    rows = views.weakening_rows(REPORT)
    assert rows[0].with_secondary.value is None
    assert rows[0].with_secondary.reason == "no prompt has a secondary sink here"
    assert rows[8].with_secondary.value < rows[8].without_secondary.low


def test_residual_sinks_in_the_order_of_the_forward_pass():
    view = views.residual_sink_view(REPORT)
    assert view.names[:3] == ("attention 0", "mlp 0", "attention 1")
    assert view.names[-1] == "final"
    assert [item.dimension for item in view.dimensions] == [117, 42]
    assert [bar.name for bar in view.bars][-1] == "random dimensions apart"
    assert (view.bars[-1].low, view.bars[-1].high) == (4.11, 4.2)
    assert view.massive[0].value == -415.0
    assert views.residual_sink_view(BARE) == BARE.residual_sinks


def test_sinks_are_joined_over_prompts_and_missing_numbers_stay_missing():
    groups = views.sink_groups(REPORT)
    assert sum(group.n_sinks for group in groups) == len(REPORT.sinks)
    first = groups[0]
    assert (first.token, first.kind, first.n_sinks, first.positions) == ("<s>", "primary", 16, (0,))
    shares = [s.attention.share for s in REPORT.of_kind("primary") if isinstance(s.attention, AttentionEvidence)]
    assert first.share == pytest.approx(sum(shares) / len(shares))
    only = next(group for group in groups if group.kind == "attention only")
    assert (only.first_layer, only.norm_ratio, only.writer) == (None, None, None)
    assert groups[-1].share is None


def test_the_summary_says_what_the_report_says():
    assert views.sink_headline(REPORT) == (
        "39 sinks in 16 prompts: 16 primary, 16 secondary, 3 attention only, 4 short-lived"
    )
    text = " ".join(views.sink_sentences(REPORT))
    assert "after blocks 2 to 10" in text
    assert "0.600 nats a token, above every random control" in text
    assert "0.300 nats a token, not above every random control" in text
    assert "dimension 117 is 24.5 ×" in text
    assert views.sink_headline(BARE) == "No sinks in 16 prompts"
    assert views.sink_sentences(BARE)[0].startswith("No position is a sink")
