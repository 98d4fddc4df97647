"""Figures of a circuit report hold what their views say, in colours that can be swapped for dark."""

from __future__ import annotations

import json

import pytest
from _fake_circuit_report import EDIT, HEADS, LAYERS, fake_circuit_report
from test_present_figures import all_colours, swapped

from attnscope.present import figures, views
from attnscope.present.circuit_html import circuit_figures, circuit_sections
from attnscope.present.style import DIVERGING, swaps
from attnscope.present.views.circuit_units import metric_words

REPORT, SCREENED, BARE = (fake_circuit_report(kind) for kind in ("full", "screened", "bare"))
METRIC = metric_words(REPORT.level("head"))
DRAWINGS = {
    "scatter": lambda theme: figures.unit_scatter_figure(views.unit_scatter(REPORT), theme),
    "scatter without circuits": lambda theme: figures.unit_scatter_figure(views.unit_scatter(SCREENED), theme),
    "grid": lambda theme: figures.score_heatmap(views.effect_grids(REPORT), theme, diverging=True),
    "top": lambda theme: figures.unit_dots(views.top_units(REPORT, "head"), METRIC, theme),
    "blocks": lambda theme: figures.block_effects(views.top_units(REPORT, "layer", 99), METRIC, theme),
    "dissociation": lambda theme: figures.dissociation_bars(views.dissociation_views(REPORT), theme),
    "curves": lambda theme: figures.circuit_curves(views.circuit_lines(REPORT, "head"), theme),
    "faithfulness": lambda theme: figures.faithfulness_curves(views.faithfulness_lines(REPORT), theme),
    "graph": lambda theme: figures.circuit_graph_figure(views.circuit_graphs(REPORT)[0], theme),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_colours_come_from_the_theme_and_every_figure_says_its_unit(name):
    light, dark = (json.loads(DRAWINGS[name](theme).to_json()) for theme in ("light", "dark"))
    assert all_colours(light) <= set(swaps())
    assert swapped(light) == dark
    assert all(axis.title.text for axis in DRAWINGS[name]("light").select_xaxes())


def test_the_scatter_has_every_head_once_and_names_those_of_the_circuits():
    data = DRAWINGS["scatter"]("light").data
    assert sum(len(trace.x) for trace in data) == LAYERS * HEADS
    assert [trace.name for trace in data] == ["in neither circuit (72)", "recall circuit (4)", "reasoning circuit (4)"]
    assert set(data[0].text) == {""}
    assert data[0].error_x.array is None
    best = list(data[1].text).index("L2H5")
    line = next(line for line in views.unit_lines(REPORT, "head") if line.name == "L2H5")
    point = line.drops["recall"].point
    assert (data[1].x[best], data[1].error_x.array[best]) == (point.value, pytest.approx(point.high - point.value))
    assert "in the circuit of recall" in data[1].customdata[best]
    assert f"[{point.low:.2f}, {point.high:.2f}], 60 prompts" in data[1].customdata[best]
    alone = DRAWINGS["scatter without circuits"]("light").data
    assert "L2H5" in alone[0].text


def test_effects_are_coloured_as_far_below_as_above_zero():
    heat = DRAWINGS["grid"]("light").data[0]
    assert heat.zmin == -heat.zmax
    assert heat.zmax == pytest.approx(max(abs(v) for row in heat.z for v in row), rel=1e-3)
    assert heat.colorscale[3] == (0.5, DIVERGING["light"][3])
    assert heat.texttemplate == "%{z:.2f}"
    buttons = DRAWINGS["grid"]("light").layout.updatemenus[0].buttons
    assert [button.label for button in buttons][-1] == "Recall minus reasoning"
    screened = figures.score_heatmap(views.effect_grids(SCREENED), diverging=True)
    assert screened.data[0].z[0][1] is None
    assert len(screened.data[1].x) == LAYERS * HEADS - 10


def test_dots_and_blocks_show_every_measured_effect():
    lines = views.top_units(REPORT, "head")
    for trace in DRAWINGS["top"]("light").data:
        assert list(trace.x) == [line.drops[trace.name].point.value for line in lines]
    blocks = DRAWINGS["blocks"]("light").data
    assert [len(trace.x) for trace in blocks] == [LAYERS] * 4
    assert [trace.showlegend for trace in blocks] == [True, True, False, False]
    assert max(blocks[2].y) == blocks[2].y[2]


def test_four_bars_and_every_draw_of_the_control():
    data = DRAWINGS["dissociation"]("light").data
    bars = [trace for trace in data if trace.type == "bar"]
    assert sorted(bars[0].y) == pytest.approx([1.5, 55.0])
    assert sorted(bars[1].y) == pytest.approx([2.0, 42.0])
    assert bars[0].error_y.array[0] > 0
    heads, neurons = views.dissociation_views(REPORT)
    draws = [trace for trace in data if trace.type == "scatter"]
    assert sum(len(trace.y) for trace in draws[:2]) == sum(len(bar.draws) for bar in heads.bars) == 20
    assert sum(len(trace.y) for trace in draws[2:]) == sum(len(bar.draws) for bar in neurons.bars) == 10
    assert "without the recall circuit, recall loses +55 [+48, +62] points, 200 prompts" in bars[0].customdata


def test_curves_are_four_plots_with_a_gap_where_there_was_no_control():
    data = DRAWINGS["curves"]("light").data
    lines = views.circuit_lines(REPORT, "head")
    for line, (whole, draws, mean, ours) in zip(lines, zip(*[iter(data)] * 4, strict=True), strict=True):
        assert list(ours.y) == [point.accuracy.value for point in line.points]
        assert len(draws.y) == sum(len(point.draws) for point in line.points)
        assert list(mean.y) == [point.control.value for point in line.points if point.control.value is not None]
        assert list(whole.y) == [point.whole for point in line.points]


def test_faithfulness_has_its_areas_and_random_circuits():
    recall, random, reasoning = DRAWINGS["faithfulness"]("light").data
    assert tuple(recall.y) == views.faithfulness_lines(REPORT)[0].values
    assert "CPR 0.907" in recall.name
    assert random.line.dash == "dot"
    assert "reasoning" in reasoning.name
    assert DRAWINGS["faithfulness"]("light").layout.xaxis.type == "log"


def test_the_graph_has_every_edge_the_widest_last_and_a_legend_of_both_signs():
    graph = views.circuit_graphs(REPORT)[0]
    *edges, nodes = DRAWINGS["graph"]("light").data
    assert len(edges) == len(graph.edges)
    assert edges[-1].line.width == max(edge.line.width for edge in edges)
    assert sorted(edge.name for edge in edges if edge.showlegend) == ["score above 0", "score below 0"]
    assert {edge.line.dash for edge in edges} == {"solid", "dot"}
    assert sorted(nodes.text) == sorted(node.name for node in graph.nodes)


def test_hostile_names_are_not_markup():
    task = REPORT.tasks[0].model_copy(update={"name": "<b>recall</b> $x$"})
    level = REPORT.level("head")
    units = [
        unit.model_copy(update={"effects": {task.name: unit.effects["recall"], "reasoning": unit.effects["reasoning"]}})
        for unit in level.units
    ]
    hostile = REPORT.model_copy(
        update={"tasks": (task, REPORT.tasks[1]), "levels": (level.model_copy(update={"units": tuple(units)}),)}
    )
    for figure in circuit_figures(hostile).values():
        figure["layout"].pop("updatemenus", None)  # the page shows their labels as plain text of a select
        assert "<b>recall" not in json.dumps(figure, default=list)
    drawn = figures.unit_scatter_figure(views.unit_scatter(hostile))
    assert "&lt;b&gt;recall&lt;/b&gt; &#36;x&#36;" in drawn.layout.xaxis.title.text
    assert EDIT not in json.dumps(circuit_figures(REPORT), default=list)


@pytest.mark.parametrize(
    "draw",
    [figures.circuit_curves, figures.dissociation_bars, figures.faithfulness_curves],
)
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(ValueError, match="at least one"):
        draw([])
    for figure in (figures.unit_dots, figures.block_effects):
        with pytest.raises(ValueError, match="at least one"):
            figure([], METRIC)


def test_a_report_has_the_figures_and_sections_that_it_has_data_for():
    assert set(circuit_figures(BARE)) == {"circuits-grid", "circuits-top-head"}
    assert [place for place, _, _ in circuit_sections(BARE)] == ["circuits-tasks", "circuits-heads", "circuits-setup"]
    assert set(circuit_figures(SCREENED)) == {"circuits-scatter", "circuits-grid", "circuits-top-head"}
    assert len(circuit_sections(REPORT)) == 11
