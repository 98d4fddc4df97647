"""Figures of a retrieval report hold what their views say, in colours that can be swapped for dark."""

from __future__ import annotations

import json

import pytest
from _fake_retrieval_report import LAYERS, fake_retrieval_report
from test_present_figures import all_colours, swapped

from attnscope.core.report import Missing
from attnscope.present import figures, views
from attnscope.present.retrieval_html import retrieval_figures
from attnscope.present.style import swaps

REPORT = fake_retrieval_report()
TOP = views.top_lines(REPORT)
DRAWINGS = {
    "grid": lambda theme: figures.needle_heatmap(views.needle_grid(REPORT), theme),
    "top": lambda theme: figures.head_dots(TOP, REPORT.threshold, theme),
    "stability": lambda theme: figures.stability_curve(views.stability_view(REPORT), theme),
    "scores": lambda theme: figures.score_heatmap(views.retrieval_grids(REPORT), theme),
    "curves": lambda theme: figures.ablation_curves(views.ablation_lines(REPORT), theme),
    "budget": lambda theme: figures.budget_curves(views.budget_lines(REPORT), theme),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_colours_come_from_the_theme_and_every_figure_says_its_unit(name):
    light, dark = (json.loads(DRAWINGS[name](theme).to_json()) for theme in ("light", "dark"))
    assert all_colours(light) <= set(swaps())
    assert swapped(light) == dark
    assert all(axis.title.text for axis in DRAWINGS[name]("light").select_xaxes())


def test_the_needle_grid_shows_every_cell_and_leaves_empty_ones_empty():
    (heat,) = DRAWINGS["grid"]("light").data
    grid = views.needle_grid(REPORT)
    assert [list(row) for row in heat.z] == [[cell.value for cell in row] for row in grid.cells]
    assert heat.z[1][3] is None
    assert heat.customdata[2][3] == "4,096 tokens, depth 50%: 61% [53%, 69%] of 3 needles"


def test_both_scores_of_the_top_heads_stand_beside_the_threshold():
    given, decoded, threshold = DRAWINGS["top"]("light").data
    assert list(given.x) == [line.score.value for line in TOP]
    assert list(decoded.x) == [line.decoded.value for line in TOP]
    assert set(threshold.x) == {0.1}
    assert given.error_x.arrayminus[0] == pytest.approx(0.06)
    assert "L6H4 (KV head 2), answer given: 0.710 [0.650, 0.770], 40 needles" in given.customdata[0]
    silent = [h.model_copy(update={"retrieval_decoded": Missing(reason="<b>not</b> asked for")}) for h in REPORT.heads]
    alone = figures.head_dots(views.top_lines(REPORT.model_copy(update={"heads": tuple(silent)})), 0.1)
    assert [trace.name for trace in alone.data] == ["answer given", "threshold 0.1"]


def test_stability_has_a_band_and_the_settled_point():
    low, mean, settled = DRAWINGS["stability"]("light").data
    assert list(mean.y) == list(REPORT.stability.overlap)
    assert list(low.y) == list(REPORT.stability.low)
    assert mean.fill == "tonexty"
    assert (settled.x[0], settled.y[0]) == (17, REPORT.stability.overlap[16])


@pytest.mark.parametrize(("name", "held"), [("curves", views.ablation_lines), ("budget", views.budget_lines)])
def test_every_draw_is_shown_and_a_missing_control_is_a_gap(name, held):
    data = DRAWINGS[name]("light").data
    for line, (whole, draws, mean, ours) in zip(held(REPORT), zip(*[iter(data)] * 4, strict=True), strict=True):
        assert list(ours.y) == [point.accuracy.value for point in line.points]
        assert list(ours.x) == [point.x for point in line.points]
        assert list(draws.y) == [value for point in line.points for value in point.draws]
        assert len(draws.y) == 20
        assert list(mean.y) == [point.control.value for point in line.points if point.control.value is not None]
        assert len(mean.y) == 4
        assert list(whole.y) == [point.whole for point in line.points]
    assert [trace.showlegend for trace in data] == [True] * 4 + [False] * 4


def test_the_menu_has_every_measure():
    buttons = DRAWINGS["scores"]("light").layout.updatemenus[0].buttons
    assert [button.label for button in buttons][-1] == "QR score (not measured)"
    assert len(buttons) == 6
    assert len(DRAWINGS["scores"]("light").data[0].z) == LAYERS


def test_hostile_names_of_heads_are_not_markup():
    step = REPORT.curve[0].model_copy(update={"heads": ("<b>L0</b>", "$x$")})
    drawn = figures.ablation_curves(views.ablation_lines(REPORT.model_copy(update={"curve": (step,)})))
    assert "&lt;b&gt;L0&lt;/b&gt;, &#36;x&#36;" in drawn.data[3].customdata[0]


@pytest.mark.parametrize("draw", [figures.ablation_curves, figures.budget_curves])
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(ValueError, match="at least one"):
        draw([])
    with pytest.raises(ValueError, match="at least one"):
        figures.head_dots([], 0.1)


def test_a_bare_report_shows_its_needles_and_nothing_else():
    assert set(retrieval_figures(fake_retrieval_report(bare=True))) == {"retrieval-grid"}
