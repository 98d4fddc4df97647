"""Figures of a sink report hold what their views say, in colours that can be swapped for dark."""

from __future__ import annotations

import json

import pytest
from _fake_sink_report import fake_sink_report
from test_present_figures import all_colours, swapped

from attnscope.present import figures, views
from attnscope.present.sink_html import sink_figures
from attnscope.present.style import swaps

REPORT = fake_sink_report()
RESIDUAL = views.residual_sink_view(REPORT)
DRAWINGS = {
    "map": lambda theme: figures.sink_map_figure(views.sink_maps(REPORT), theme),
    "spans": lambda theme: figures.level_spans(views.level_rows(REPORT), theme),
    "shares": lambda theme: figures.level_lines(views.level_rows(REPORT), theme),
    "services": lambda theme: figures.score_heatmap(views.service_grids(REPORT), theme),
    "norms": lambda theme: figures.trace_norm_lines(views.trace_rows(REPORT), theme),
    "cosines": lambda theme: figures.trace_cosine_lines(views.trace_rows(REPORT), theme),
    "dormant": lambda theme: figures.dormant_map(views.dormant_view(REPORT), theme),
    "weakening": lambda theme: figures.weakening_lines(views.weakening_rows(REPORT), theme),
    "writers": lambda theme: figures.writer_bars(views.writer_views(REPORT), theme),
    "curves": lambda theme: figures.write_curves(views.write_views(REPORT), theme),
    "effects": lambda theme: figures.effect_dots([view.effect for view in views.write_views(REPORT)], theme),
    "reads": lambda theme: figures.read_scores(RESIDUAL, theme),
    "bound": lambda theme: figures.rescaling_lines(RESIDUAL, theme),
    "direct": lambda theme: figures.direct_lines(RESIDUAL, theme),
    "bars": lambda theme: figures.quantisation_bars(RESIDUAL.bars, theme),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_colours_come_from_the_theme_and_every_figure_says_its_unit(name):
    light, dark = (json.loads(DRAWINGS[name](theme).to_json()) for theme in ("light", "dark"))
    assert all_colours(light) <= set(swaps())
    assert swapped(light) == dark
    figure = DRAWINGS[name]("light")
    assert all(axis.title.text for axis in figure.select_xaxes())
    assert "<script" not in json.dumps(light)
    assert "$x" not in json.dumps(light)


def test_the_map_marks_what_the_residual_stream_says_and_its_menu_has_every_prompt():
    heat, marks = DRAWINGS["map"]("light").data
    first = views.sink_maps(REPORT)[0]
    assert [list(row) for row in heat.z] == [
        [column.shares[layer] for column in first.columns] for layer in range(first.n_layers)
    ]
    assert list(zip(marks.x, marks.y, strict=True)) == [
        (x, layer) for x, column in enumerate(first.columns) for layer in column.residual_layers
    ]
    buttons = DRAWINGS["map"]("light").layout.updatemenus[0].buttons
    assert [button.label.split(":")[0] for button in buttons] == [f"prompt {m.prompt}" for m in views.sink_maps(REPORT)]
    traces, layout = buttons[1].args
    assert len(traces["z"][0][0]) == len(layout["xaxis.ticktext"]) == len(views.sink_maps(REPORT)[1].columns)


def test_traces_and_dormant_heads_are_drawn_as_they_were_measured():
    for name, field in (("norms", "norm"), ("cosines", "cosine")):
        lines = DRAWINGS[name]("light").data
        assert [list(line.y) for line in lines] == [list(getattr(row, field)) for row in views.trace_rows(REPORT)]
    heat = DRAWINGS["dormant"]("light").data[0]
    assert [tuple(row) for row in heat.z] == list(views.dormant_view(REPORT).values)
    assert (heat.zmin, heat.zmax) == (0, 1)


def test_spans_run_from_the_first_block_to_the_last():
    bars = DRAWINGS["spans"]("light").data[0]
    assert list(bars.base) == [1.5, 5.5, 7.5]
    assert list(bars.x) == [9, 5, 2]


def test_levels_without_attention_are_not_drawn_as_zero():
    names = [trace.name for trace in DRAWINGS["shares"]("light").data]
    assert names == ["primary, blocks 2–10", "secondary, blocks 6–10"]
    absent = [row for row in views.level_rows(REPORT) if not row.measured]
    with pytest.raises(ValueError, match="measured share"):
        figures.level_lines(absent)


def test_weakening_has_intervals_and_gaps():
    without, held = DRAWINGS["weakening"]("light").data
    assert held.y[0] is None
    assert held.y[7] == pytest.approx(0.54 * 0.7)
    assert without.error_y.array[3] == pytest.approx(0.02)


def test_every_draw_of_every_control_is_shown():
    change, random, positions = DRAWINGS["effects"]("light").data
    assert list(change.x) == [0.6, 0.3]
    assert len(random.x) == len(positions.x) == 10
    assert list(random.x[:5]) == list(REPORT.writes[0].control_changes)


def test_curves_have_the_norm_below_and_three_measures_above():
    figure = DRAWINGS["curves"]("light")
    curve = views.write_views(REPORT)[0].curve
    for trace, name in zip(figure.data[::2], ("share", "lifetime", "loss"), strict=True):
        assert list(trace.x) == [point.norm for point in curve]
        assert list(trace.y) == [getattr(point, name) for point in curve]


def test_rescaling_stands_beside_contribution():
    rescaling, direct = DRAWINGS["direct"]("light").data
    assert list(direct.y) == [read.direct for read in RESIDUAL.reads]
    assert rescaling.y[3] == pytest.approx(1 - 1 / RESIDUAL.reads[3].denominator)
    bound, measured = DRAWINGS["bound"]("light").data
    assert all(m <= b for m, b in zip(measured.y, bound.y, strict=True))


@pytest.mark.parametrize(
    "draw",
    [figures.sink_map_figure, figures.level_spans, figures.weakening_lines, figures.writer_bars, figures.write_curves,
     figures.effect_dots, figures.quantisation_bars],
)  # fmt: skip
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(ValueError, match="at least one"):
        draw([])


def test_a_bare_report_has_no_figures():
    assert sink_figures(fake_sink_report(bare=True)) == {}
