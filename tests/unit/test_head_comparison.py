"""Comparisons: chance laws against enumeration, correlations against scipy, sides of every kind, the figure's data."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from _head_files import full_run, made_up
from scipy.stats import kendalltau, spearmanr

from attnscope.analyses.compare import agree, correlate, overlap, tied_at_cut
from attnscope.analyses.head_sets import top_mask
from attnscope.core.errors import ReportError, StatisticsError
from attnscope.core.head_comparison import HeadComparison, OverlapResult
from attnscope.core.head_file import HeadFile, RankedHead, Ranking
from attnscope.core.report import Missing
from attnscope.present.comparison_html import comparison_page
from attnscope.present.figures.head_comparison import comparison_scatter
from attnscope.present.style import swaps
from attnscope.present.views.head_comparison import GROUPS, scatter_view
from attnscope.reports.formats import formats
from attnscope.reports.head_comparison import compare_heads
from attnscope.reports.head_files import export_heads


def placings(layers: int, heads: int, k: int):
    for chosen in combinations(range(layers * heads), k):
        mask = np.zeros(layers * heads, dtype=bool)
        mask[list(chosen)] = True
        yield mask.reshape(layers, heads)


@pytest.mark.parametrize("seed", range(4))
def test_chance_is_that_of_every_placing(seed):
    rng = np.random.default_rng(seed)
    a, b = (top_mask(rng.random((3, 4)), k) for k in (4, 3))
    found = overlap(a, b)
    counts = np.array([(a & mask).sum() for mask in placings(3, 4, 3)])
    assert found.expected == pytest.approx(counts.mean())
    assert found.p_value == pytest.approx((counts >= found.shared).mean())
    assert found.shared == (a & b).sum()
    assert found.jaccard == pytest.approx((a & b).sum() / (a | b).sum())
    kept = [mask for mask in placings(3, 4, 3) if (mask.sum(1) == b.sum(1)).all()]
    counts = np.array([(a & mask).sum() for mask in kept])
    assert found.layer_expected == pytest.approx(counts.mean())
    assert found.layer_p_value == pytest.approx((counts >= found.shared).mean())


def test_heads_that_one_side_lacks_are_left_out():
    a, b = np.ones((2, 2), dtype=bool), np.ones((2, 2), dtype=bool)
    found = overlap(a, b, np.array([[True, True], [True, False]]))
    assert (found.heads, found.first, found.shared) == (3, 3, 3)
    with pytest.raises(StatisticsError, match="none"):
        overlap(a, b, ~a)
    with pytest.raises(StatisticsError, match="shapes"):
        overlap(a, b[:1])


def test_correlations_are_scipy_s_and_their_intervals_cover():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (8, 8)).astype(float)
    y = x + rng.normal(0, 4, (8, 8))
    y[0, 0] = np.nan
    found = correlate(x, y, resamples=400)
    one, two = x.ravel()[1:], y.ravel()[1:]
    assert found.heads == 63
    assert found.spearman == pytest.approx(spearmanr(one, two).statistic)
    assert found.kendall == pytest.approx(kendalltau(one, two).statistic)
    for value, bounds in ((found.spearman, found.spearman_interval), (found.kendall, found.kendall_interval)):
        assert bounds[0] < value < bounds[1]
        assert 0.1 < bounds[1] - bounds[0] < 0.7
    assert correlate(np.ones((2, 2)), x[:2, :2]).spearman is None
    with pytest.raises(StatisticsError, match="at least 3"):
        correlate(x[:1, :2], x[:1, :2])


def test_kappa():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 400)) < 0.3
    found = agree(a, b)
    observed, chance = (a == b).mean(), a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    assert found.kappa == pytest.approx((observed - chance) / (1 - chance))
    assert agree(a, a).kappa == pytest.approx(1)
    assert agree(a, ~a).kappa < 0
    assert agree(np.zeros(3, bool), np.zeros(3, bool)).kappa is None


def test_sets_of_heads():
    values = np.array([[0.5, 0.9], [0.5, np.nan]])
    assert np.array_equal(top_mask(values, 2), [[True, True], [False, False]])
    assert tied_at_cut(values, top_mask(values, 2)) == 1
    with pytest.raises(StatisticsError, match="0 to 3"):
        top_mask(values, 4)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    made = {"a": full_run(folder / "a", 0), "b": full_run(folder / "b", 1)}
    found = {name: run.path for name, run in made.items()}
    for name in formats.names():
        found[name] = export_heads(made["a"], name, folder / f"{name}.json")[1]
    found["other_chunks"] = export_heads(made["b"], "fasa", folder / "other.json")[1]
    few = HeadFile(
        format="qrhead",
        space="query_head",
        content=Ranking(heads=(RankedHead(layer=5, head=0), RankedHead(layer=6, head=7))),
    )
    found["few"] = formats.get("qrhead").write(few, folder / "few.yaml")
    found["small"] = formats.get("minference").write(
        made_up("minference", 2, 2, np.random.default_rng(0)), folder / "small.json"
    )
    return found


def test_two_runs(places):
    found = compare_heads(places["a"], places["b"], resamples=50)
    assert HeadComparison.from_json(found.to_json()) == found
    assert found.space == "query_head"
    assert isinstance(found.overlap, OverlapResult)
    assert found.overlap.shared == found.overlap.first == round(0.05 * 64)
    assert found.correlation.spearman == pytest.approx(1)
    assert {"retrieval", "induction", "sink_rate"} <= {row.score for row in found.scores}
    assert {row.label for row in found.labels} >= {"induction", "sink"}
    kappas = {row.label: row.kappa for row in found.labels}
    assert kappas["induction"] == 1
    assert isinstance(kappas["recall"], Missing)
    assert len(found.points) == 64


def test_query_heads_against_kv_heads(places):
    found = compare_heads(places["a"], places["duo_attention"], top=3, resamples=50)
    assert found.space == "kv_head"
    assert found.first.reduction == "max over query heads"
    assert found.second.reduction is None
    assert (found.first.n_heads, found.overlap.first, found.overlap.heads) == (2, 3, 16)
    from attnscope.core.run_directory import open_run

    run = open_run(places["a"])
    scores = run.report.heads.pivot(index="layer", columns="head", values="retrieval").to_numpy()
    reduced, gates = scores.reshape(8, 2, 4).max(2), run.statistics("duo_gates").duo_gate.to_numpy()
    assert found.correlation.spearman == pytest.approx(spearmanr(reduced.ravel(), gates.ravel()).statistic)
    chosen = {(p.layer, p.head) for p in found.points if p.in_second}
    assert chosen == {divmod(int(i), 2) for i in np.argsort(-gates, axis=None)[:3]}


def test_lists_and_marks_are_sets(places):
    found = compare_heads(places["few"], places["a"], resamples=0)
    assert (found.overlap.first, found.overlap.second) == (2, 2)
    assert found.overlap.shared == 1  # L5H0 is among the two best by retrieval, L6H7 is third
    assert isinstance(found.correlation, Missing)
    assert compare_heads(places["few"], places["a"], top=1, resamples=0).overlap.first == 1
    marked = compare_heads(places["lychee"], places["duo_attention"], resamples=0)
    assert marked.first.chosen_by.startswith("the heads marked 1")
    assert marked.overlap.first == marked.overlap.second
    with pytest.raises(ReportError, match="--model"):
        compare_heads(places["few"], places["duo_attention"])


def test_a_file_against_the_run_that_it_came_from(places):
    same = compare_heads(places["retrieval_head"], places["a"], top=5, resamples=0)
    assert same.overlap.shared == 5
    assert same.correlation.spearman == pytest.approx(1)
    for name in ("minference", "qrhead", "razor"):
        assert compare_heads(places[name], places["a"], resamples=0).overlap.heads == 64


def test_chunks(places):
    same = compare_heads(places["fasa"], places["fasa"])
    assert same.chunks.shared == 1
    other = compare_heads(places["fasa"], places["other_chunks"]).chunks
    assert other.expected == pytest.approx(4 / 16)
    assert abs(other.shared - other.expected) < 0.1
    with pytest.raises(ReportError, match="expected dominant chunks"):
        compare_heads(places["fasa"], places["a"])


def test_models_of_different_shapes(places):
    with pytest.raises(ReportError, match=r"2 layers of 2 query heads.*8 layers of 8 query heads"):
        compare_heads(places["a"], places["small"])
    with pytest.raises(ReportError, match=r"not measured.*expected one of"):
        compare_heads(places["a"], places["b"], score="copying")


def test_the_figure_holds_every_head_once_by_set(places):
    import json

    found = compare_heads(places["a"], places["minference"], top=4, resamples=0)
    view = scatter_view(found)
    assert [group.name for group in view.groups] == list(GROUPS)
    names = [head for group in view.groups for head in group.heads]
    assert len(names) == len(set(names)) == 64
    neither, first, second, both = (len(group.heads) for group in view.groups)
    assert first + both == second + both == 4
    assert both == found.overlap.shared
    assert neither == 64 - first - second - both
    light, dark = (json.loads(comparison_scatter(view, theme).to_json()) for theme in ("light", "dark"))
    drawn = {
        trace["customdata"][i]: (x, y)
        for trace in light["data"]
        for i, (x, y) in enumerate(zip(trace["x"], trace["y"]))
    }
    assert drawn == {f"L{p.layer}H{p.head}": (p.first, p.second) for p in found.points}
    colours = [trace["marker"]["color"] for trace in light["data"]]
    assert len(set(colours)) == 4
    assert [swaps()[colour] for colour in colours] == [trace["marker"]["color"] for trace in dark["data"]]
    listed = scatter_view(compare_heads(places["few"], places["a"], resamples=0))
    assert {x for group in listed.groups for x in group.x} == {0, 1}
    assert "others: 0" in listed.x_title


def test_the_page_is_safe_and_whole(places, tmp_path):
    hostile = tmp_path / "<img src=x onerror=alert(1)>.json"
    hostile.write_bytes(places["minference"].read_bytes())
    page = comparison_page(compare_heads(hostile, places["a"], resamples=0))
    assert '"modeBarButtons": [["toImage"]]' in page  # no button that sends the figure anywhere
    assert "<img src=x" not in page
    assert "Plotly" in page
    with pytest.raises(ReportError, match="figure"):
        comparison_page(compare_heads(places["fasa"], places["fasa"]))
