"""Frequency chunks without a model: analyses, sampling, report, run, views, figures and text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from _fake_frequency_report import (
    BUDGETS,
    CHUNKS,
    NOTE,
    fake_frequency_report,
    fake_frequency_statistics,
)
from test_present_figures import all_colours, swapped
from test_present_text import printed

from attnscope.analyses import frequency as chunks
from attnscope.core.errors import OutputError, ReportError
from attnscope.core.frequency_report import FrequencyReport
from attnscope.core.frequency_run import check_frequency_run, open_frequency_run, write_frequency_run
from attnscope.core.statistics import check
from attnscope.engine.frequency_pass import Sampling
from attnscope.present import figures, views
from attnscope.present.frequency_text import frequency_summary
from attnscope.present.style import LABEL_STYLES, swaps

REPORT, BARE = fake_frequency_report(), fake_frequency_report(bare=True)


def test_dominant_chunks_are_ranked_and_ties_take_the_lowest() -> None:
    found = chunks.dominant_chunks(np.array([[0.2, 0.5, 0.5, 0.1], [np.nan, 0.1, 0.2, 0.3]]), 3)
    assert found.tolist() == [[1, 2, 0], [-1, -1, -1]]


def test_low_frequency_share_counts_what_is_above_chance() -> None:
    agreement = np.array([[[0.05, 0.3, 0.5]], [[0.1, 0.1, 0.1]], [[np.nan] * 3]])
    waves = np.array([[6.0, 100.0, math.inf]] * 3)
    found = chunks.low_frequency_share(agreement, np.array([0.1, 0.1, 0.1]), waves, 100)
    assert found[0, 0] == pytest.approx(0.4 / 0.6)
    assert np.isnan(found[1:]).all()


def test_random_sets_overlap_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    sets = np.stack([rng.permutation(32)[:8] for _ in range(8000)])
    measured = chunks.overlap(sets[::2], sets[1::2])
    assert measured.mean() == pytest.approx(chunks.overlap_by_chance(8, 32), abs=0.01)


def test_queries_see_twice_the_largest_budget_that_fits() -> None:
    sampling = Sampling((4, 16, 64), queries=6, seed=1)
    drawn = sampling.draw(3, 100)
    assert drawn.min() >= 31
    assert len(set(drawn)) == 6
    assert (np.diff(drawn) > 0).all()
    assert (sampling.draw(3, 100) == drawn).all()
    assert (sampling.draw(4, 100) != drawn).any()
    assert (sampling.draw(3, 7) == -1).all()


def test_the_report_holds_what_was_measured() -> None:
    assert all(head.dominant[0] == (head.layer + head.head) % CHUNKS for head in REPORT.heads if head.layer < 3)
    last = [head for head in REPORT.heads if head.layer == 3]
    assert all(head.dominant == () and set(head.agreement) == {None} for head in last)
    assert REPORT.dominant_share == pytest.approx(1 / CHUNKS, abs=1e-4)
    assert REPORT.chance == pytest.approx(0.02)
    assert REPORT.overlap_size == 4
    margin = next(m for m in REPORT.margins if (m.chunks, m.baseline, m.budget) == (8, "recent", 8))
    assert margin.difference.value == pytest.approx(0.42, abs=0.01)
    assert REPORT.choice("chunks 8", 32).agreement.value == pytest.approx(0.75, abs=0.01)
    assert REPORT.choice("nothing") is None
    assert math.isinf(REPORT.wavelengths[0].tokens[-1])
    assert BARE.choices == BARE.margins == ()
    assert [one.overlap for one in BARE.overlaps] == [None]
    assert {head.low_frequency_share for head in BARE.heads} == {None}


@pytest.mark.parametrize("report", [REPORT, BARE])
def test_a_report_is_the_same_after_reading(report: FrequencyReport) -> None:
    assert FrequencyReport.from_json(report.to_json()) == report


def test_a_newer_report_is_refused() -> None:
    newer = json.loads(REPORT.to_json()) | {"schema_version": 2}
    with pytest.raises(ReportError, match="at most 1"):
        FrequencyReport.from_json(json.dumps(newer))


def test_statistics_have_the_promised_variables() -> None:
    data = check(fake_frequency_statistics())
    assert data.dominant_chunk.dims == ("layer", "head", "rank")
    assert data.dominant_chunk.dtype.kind == "i"
    assert (data.dominant_chunk[3] == -1).all()
    assert sorted(data.dominant_chunk[0, 0].values) == list(range(CHUNKS))
    assert data.contextual_agreement.dims == ("layer", "head", "chunk")
    assert data.compound_agreement.dims == ("choice", "budget", "layer", "head")
    assert data.kv_agreement.sizes["kv_head"] == 2
    assert data.attrs["pairing"] == "rotate_half"
    assert (data.attrs["rotary_dims"], data.attrs["queries"], data.attrs["budget"]) == (2 * CHUNKS - 2, 5, 8)
    pairs = set(zip(data.first_dimension.values.tolist(), data.second_dimension.values.tolist(), strict=True))
    assert (0, CHUNKS) in pairs


def test_write_then_open(tmp_path: Path) -> None:
    data = {"frequency": fake_frequency_statistics()}
    run = write_frequency_run(tmp_path / "run", REPORT, data, lambda: "<p>hi</p>")
    opened = open_frequency_run(run.path)
    assert opened.report == REPORT
    assert opened.html.read_text() == "<p>hi</p>"
    xr.testing.assert_equal(opened.statistics(), data["frequency"])
    (run.path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match=r"mine\.txt"):
        check_frequency_run(run.path)
    with pytest.raises(ReportError, match="no such folder"):
        open_frequency_run(tmp_path / "absent")


def test_views_leave_out_what_was_not_measured() -> None:
    found = views.chunk_map(REPORT)
    assert found is not None
    assert (len(found.names), found.first_rows) == (24, {0: 0, 1: 8, 2: 16})
    assert found.waves[0][0] == "6.3 tokens"
    assert found.waves[0][-1] == "never turns"
    assert found.limits[0] == 7.5
    lines = {line.method: line for line in views.choice_lines(REPORT)}
    assert lines["chunks 4"].paper == 59.7
    assert lines["chunks 2"].paper == 49.4
    assert lines["chunks 8"].paper is None
    assert lines["stream"].paper == 26.8
    assert views.overlap_matrix(BARE) is None
    assert views.choice_lines(BARE) == []
    assert views.chunk_map(BARE).limits[0] is None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_take_their_colours_from_the_theme(theme) -> None:
    drawings = {
        "map": lambda theme: figures.chunk_map_figure(views.chunk_map(REPORT), theme),
        "waves": lambda theme: figures.chunk_lines(views.chunk_curves(REPORT), theme),
        "choices": lambda theme: figures.choice_lines_figure(views.choice_lines(REPORT), theme),
        "overlap": lambda theme: figures.overlap_figure(views.overlap_matrix(REPORT), theme),
    }
    for draw in drawings.values():
        light = json.loads(draw("light").to_json())
        assert all_colours(light) <= set(swaps()) | {style.ink_light for style in LABEL_STYLES.values()}
        if theme == "dark":
            assert swapped(light) == json.loads(draw("dark").to_json())


def test_figures_refuse_nothing() -> None:
    for draw in (figures.chunk_lines, figures.choice_lines_figure):
        with pytest.raises(ValueError, match="at least one"):
            draw([])


@pytest.mark.parametrize("width", [80, 110])
def test_text_says_it_all_and_fits(width: int) -> None:
    text = printed(frequency_summary(REPORT), width)
    assert max(map(len, text.splitlines())) <= width
    for part in ("8 of 16 frequency chunks find 75%", "SnapKV", "59.7%", "needle", "in pairs (i, i + d/2)"):
        assert part in text
    assert "They beat recent keys" in " ".join(text.split())
    bare = " ".join(printed(frequency_summary(BARE), width).split())
    assert bare.count("not measured") >= 3
    assert NOTE in bare


def test_a_lost_comparison_is_said() -> None:
    lost = [
        m.model_copy(update={"difference": m.difference.model_copy(update={"value": -0.1})})
        if (m.baseline, m.budget) == ("recent", BUDGETS[1])
        else m
        for m in REPORT.margins
    ]
    sentences = views.frequency_sentences(REPORT.model_copy(update={"margins": tuple(lost)}))
    assert sentences[0] == "They do not beat Recent keys at 16."
