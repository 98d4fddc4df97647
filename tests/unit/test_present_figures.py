"""Figures hold what their views say."""

from __future__ import annotations

import json

import pytest
from _fake_report import fake_report

from attnscope.core.report import Missing
from attnscope.present import figures, views
from attnscope.present.figures._layout import plain
from attnscope.present.style import LABEL_STYLES, swaps

REPORT, STATISTICS = fake_report()
DRAWINGS = {
    "grid": lambda theme: figures.head_grid_figure(views.head_grid(REPORT), theme),
    "scores": lambda theme: figures.score_heatmap(views.score_grids(REPORT), theme),
    "norms": lambda theme: figures.residual_norm_lines(views.residual_norms(STATISTICS), theme),
    "outliers": lambda theme: figures.outlier_bars(views.outlier_rows(REPORT), theme),
    "profiles": lambda theme: figures.distance_profiles(views.labelled_profiles(REPORT, STATISTICS), theme),
    "causal": lambda theme: figures.causal_bars(views.causal_views(REPORT), theme),
}


def swapped(value):
    if isinstance(value, str):
        return swaps().get(value, value)
    if isinstance(value, list):
        return [swapped(item) for item in value]
    if isinstance(value, dict):
        return {key: swapped(item) for key, item in value.items()}
    return value


def all_colours(value):
    if isinstance(value, str):
        return {value} if value.startswith("#") else set()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(all_colours, items))


@pytest.mark.parametrize("name", DRAWINGS)
def test_axes_have_titles_and_colours_come_from_the_theme(name):
    figure = DRAWINGS[name]("light")
    raw = json.loads(figure.to_json())
    assert all_colours(raw) <= set(swaps()) | {style.ink_light for style in LABEL_STYLES.values()}
    titles = [axis.title.text for axis in figure.select_yaxes()]
    assert any(titles)


@pytest.mark.parametrize("name", [name for name in DRAWINGS if name != "grid"])
def test_the_light_figure_with_colours_swapped_is_the_dark_one(name):
    light, dark = (json.loads(DRAWINGS[name](theme).to_json()) for theme in ("light", "dark"))
    assert swapped(light) == dark


def test_head_grid_marks_every_head_once():
    figure = DRAWINGS["grid"]("dark")
    heads = [name for trace in figure.data for name in trace.customdata]
    assert sorted(heads) == sorted(str(record.id) for record in REPORT.records)
    sink = next(trace for trace in figure.data if trace.name.startswith("Sink"))
    assert sink.marker.color == LABEL_STYLES["sink"].dark
    assert set(sink.text) == {"Si"}


def test_the_heatmap_menu_has_every_score_and_crosses_out_what_is_missing():
    grids = views.score_grids(REPORT)
    figure = DRAWINGS["scores"]("light")
    heat, crosses = figure.data
    assert [list(row) for row in heat.z] == [
        [pytest.approx(value, rel=1e-3) for value in row] for row in grids[0].values
    ]
    assert len(crosses.x) == 0
    buttons = figure.layout.updatemenus[0].buttons
    assert len(buttons) == len(grids)
    last = buttons[-1]
    assert last.label.endswith("(not measured)")
    changes, layout = last.args
    assert {value for row in changes["z"][0] for value in row} == {None}
    assert len(changes["x"][1]) == 64
    assert layout["annotations"][0]["text"].startswith("Not measured: ")


def test_a_partly_measured_score_is_crossed_out_where_it_is_missing():
    record = REPORT.records[9]
    scores = {**record.scores, "first_token_mass": Missing(reason="x")}
    records = [*REPORT.records]
    records[9] = record.model_copy(update={"scores": scores})
    partly = REPORT.model_copy(update={"records": tuple(records)})
    heat, crosses = figures.score_heatmap([views.score_grid(partly, "first_token_mass")]).data
    assert (list(crosses.x), list(crosses.y)) == ([1], [1])
    assert heat.z[1][1] is None


def test_norms_are_on_a_log_axis():
    figure = DRAWINGS["norms"]("light")
    norms = views.residual_norms(STATISTICS)
    assert figure.layout.yaxis.type == "log"
    assert tuple(figure.data[0].y) == norms.first
    assert tuple(figure.data[1].y) == norms.others


def test_causal_bars_have_intervals():
    figure = DRAWINGS["causal"]("light")
    view = views.causal_views(REPORT)[0]
    assert tuple(figure.data[0].y) == (0.97, 0.21, 0.95)
    assert figure.data[0].error_y.array[1] == pytest.approx(view.ablated.high - view.ablated.value)
    assert figure.data[0].error_y.arrayminus[1] == pytest.approx(view.ablated.value - view.ablated.low)


def test_profiles_draw_one_plot_a_head():
    profiles = views.labelled_profiles(REPORT, STATISTICS)
    figure = DRAWINGS["profiles"]("light")
    assert [tuple(trace.y) for trace in figure.data] == [profile.mass for profile in profiles]


@pytest.mark.parametrize("draw", [figures.score_heatmap, figures.distance_profiles, figures.causal_bars])
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(ValueError, match="at least one"):
        draw([])


def test_plotly_gets_no_markup_and_no_tex():
    shown = plain("<b>&amp;</b> $x^2$")
    assert shown == "&lt;b&gt;&amp;amp;&lt;/b&gt; &#36;x^2&#36;"
    assert "<b>the tokenizer" not in json.dumps(json.loads(DRAWINGS["scores"]("light").to_json()))
