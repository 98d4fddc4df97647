"""Laws of circuits of edges: all and none are the two runs, a writer's edges its patch, one edge its estimate."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from _tiny_models import MODELS, SIZES, tiny
from test_sweep_laws import pairs, scopes

import attnscope
from attnscope.analyses.faithfulness import MIB_SIZES
from attnscope.core.errors import StatisticsError, UnknownNameError, UnsupportedModelError
from attnscope.core.ids import HeadId
from attnscope.engine.attribution.circuit_edges import edge_counts, edges_from, random_edges, top_edges
from attnscope.engine.attribution.edge_circuits import run_edge_circuits
from attnscope.engine.attribution.edge_faithfulness import edge_faithfulness
from attnscope.engine.attribution.edges import Edges, Graph, attribute_edges
from attnscope.engine.sweep.alternatives import OtherRun
from attnscope.engine.sweep.paths import Receiver, patch_paths
from attnscope.engine.sweep.run import sweep
from attnscope.engine.sweep.units import Unit

PLAIN = [name for name in MODELS if name != "gemma2"]
METRIC = "logit_difference"


def without(graph: Graph, sources: list[str], targets: list[str] | None = None) -> np.ndarray:
    kept = graph.reachable()
    columns = slice(None) if targets is None else [graph.targets.index(target) for target in targets]
    for source in sources:
        kept[graph.sources.index(source), columns] = False
    return kept


@pytest.mark.parametrize("name", PLAIN)
def test_all_edges_are_the_model_and_none_the_other_run(name: str) -> None:
    scope = scopes(name)
    every = Graph(scope).reachable()
    found = run_edge_circuits(scope, pairs(), [every, np.zeros_like(every)], metric=METRIC)
    clean = sweep(scope, pairs(), [(Unit("mlp", 0),)], metrics=METRIC).baseline[METRIC]
    other = sweep(scope, pairs(), [(Unit("mlp", 0),)], metrics=METRIC, base="corrupt_ids").baseline[METRIC]
    assert np.abs(clean - other).max() > 1e-2
    np.testing.assert_allclose(found.whole, clean, atol=1e-5)
    np.testing.assert_allclose(found.empty, other, atol=1e-5)
    np.testing.assert_allclose(found.values[:, 0], clean, atol=1e-5)
    np.testing.assert_allclose(found.values[:, 1], other, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_all_edges_of_a_writer_are_its_patch(name: str) -> None:
    scope = scopes(name)
    graph = Graph(scope)
    variants = [(Unit("head", 0, 1),), (Unit("head", 1, 2),), (Unit("mlp", 1),), (Unit("head", 1, 0), Unit("mlp", 0))]
    patched = sweep(scope, pairs(), variants, metrics=METRIC, alternative=OtherRun()).values[METRIC]
    circuits = [without(graph, [str(unit) for unit in variant]) for variant in variants]
    found = run_edge_circuits(scope, pairs(), circuits, metric=METRIC)
    assert np.abs(found.values - found.whole[:, None]).max() > 1e-3
    np.testing.assert_allclose(found.values, patched, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_one_edge_into_a_query_and_a_writer_s_direct_path_to_the_logits(name: str) -> None:
    scope = scopes(name)
    graph = Graph(scope)
    # a head of the last block reaches the logits directly and through its own block's MLP alone, and nothing stands
    # between the MLP of block 1 and a query of block 2
    found = run_edge_circuits(scope, pairs(), [without(graph, ["L2H1"]), without(graph, ["mlp 1"], ["L2H3 query"])])
    direct = patch_paths(scope, pairs(), senders=[Unit("head", 2, 1)], metric=METRIC)
    np.testing.assert_allclose(found.values[:, 0], direct.values[:, 0], atol=1e-5)
    query = patch_paths(scope, pairs(), [Receiver(HeadId(2, 3), "query")], [Unit("mlp", 1)], metric=METRIC)
    np.testing.assert_allclose(found.values[:, 1], query.values[:, 0], atol=1e-5)
    assert np.abs(query.values - query.baseline[:, None]).max() > 1e-4


def near(scope: Any, step: float) -> Any:
    """Pairs whose two tokens have almost the same embedding, so that the other run is a small step away."""
    embedding = scope.model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        embedding[41] = embedding[40] + step * torch.randn(embedding.shape[1], generator=generator, dtype=torch.float64)
    rows = []
    for i in range(2):
        clean = torch.randint(3, 30, (9,), generator=generator).tolist()
        clean[4] = 40
        corrupt = [*clean[:4], 41, *clean[5:]]
        rows.append({"input_ids": clean, "corrupt_ids": corrupt, "answer_ids": [50 + i], "wrong_ids": [70]})
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("name", PLAIN)
def test_small_steps_along_one_edge_are_what_attribution_estimates(name: str) -> None:
    scope = tiny(name)
    scope.model.double()
    step = 1e-4
    prompts = near(scope, step)
    edges, graph = attribute_edges(scope, prompts, metric=METRIC), Graph(scope)
    chosen = np.argwhere(graph.reachable())[::23]
    kinds = {graph.targets[j].split()[-1] for _, j in chosen}
    assert {"query", "key", "value"} <= kinds
    also = [("embedding", "mlp 1"), ("L0H1", "logits"), ("L0H2", "mlp 1"), ("mlp 0", "logits")]
    chosen = [*chosen, *((graph.sources.index(a), graph.targets.index(b)) for a, b in also)]
    circuits = []
    for i, j in chosen:
        kept = graph.reachable()
        kept[i, j] = False
        circuits.append(kept)
    found = run_edge_circuits(scope, prompts, circuits, metric=METRIC)
    exact = (found.values - found.whole[:, None]).mean(0) / step
    expected = np.array([edges.scores[i, j] for i, j in chosen]) / step
    size = np.abs(expected).max()
    assert size > 1e-3
    np.testing.assert_allclose(exact, expected, atol=0.01 * size)


def test_the_curve_goes_from_the_other_run_to_the_model() -> None:
    scope = scopes("llama")
    edges = attribute_edges(scope, pairs(), metric=METRIC, steps=5)
    found = {ranking: edge_faithfulness(scope, pairs(), edges, ranking=ranking) for ranking in ("gain", "magnitude")}  # type: ignore[arg-type]
    drawn = edge_faithfulness(scope, pairs(), random_edges(edges, seed=1))
    for curve in (*found.values(), drawn):
        assert curve.sizes == MIB_SIZES
        assert curve.counts[-1] == Graph(scope).reachable().sum()
        assert curve.f[-1] == pytest.approx(1, abs=1e-4)
        assert curve.areas.cmd >= 0
    assert edge_faithfulness(scope, pairs(), edges, (0.0, 1.0)).f[0] == pytest.approx(0, abs=1e-5)
    assert found["gain"].areas.cpr > drawn.areas.cpr
    by_gain, by_size = (top_edges(edges, 50, ranking) for ranking in ("gain", "magnitude"))  # type: ignore[arg-type]
    assert (by_gain != by_size).any()
    assert edges.scores[by_gain].max() <= edges.scores[~by_gain & ~np.isnan(edges.scores)].min()


def test_batches_and_prompts_of_two_lengths_do_not_matter() -> None:
    scope = scopes("qwen3")
    kept = random_circuit(scope)
    large = run_edge_circuits(scope, pairs(), [kept])
    small = run_edge_circuits(scope, pairs(), [kept], batch_tokens=1)
    np.testing.assert_allclose(large.values, small.values, atol=1e-5)
    seen: list[tuple[int, int]] = []
    run_edge_circuits(scope, pairs(), [kept], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)


def random_circuit(scope: Any) -> np.ndarray:
    exists = Graph(scope).reachable()
    return exists & (np.random.default_rng(0).random(exists.shape) < 0.5)


def test_a_model_of_gpt2_s_shape_has_as_many_edges_as_mib_counts() -> None:
    config = transformers.GPT2Config(vocab_size=96, n_embd=24, n_head=12, n_layer=12, n_positions=8, bos_token_id=1,
                                     eos_token_id=2)  # fmt: skip
    graph = Graph(attnscope.load(config=config, random_weights=True, device="cpu"))
    assert graph.reachable().sum() == 32491


def test_a_norm_shared_by_attention_and_mlp_is_refused() -> None:
    scope = attnscope.load(config=transformers.PhiConfig(**SIZES), random_weights=True, device="cpu")
    with pytest.raises(UnsupportedModelError, match="mlp_norm_input"):
        run_edge_circuits(scope, pairs(), [Graph(scope).reachable()])


def test_circuits_that_do_not_fit_are_refused() -> None:
    scope, graph = scopes("llama"), Graph(scopes("llama"))
    with pytest.raises(StatisticsError, match=r"bool \(2, 2\)"):
        run_edge_circuits(scope, pairs(), [np.zeros((2, 2), dtype=bool)])
    backwards = np.zeros_like(graph.reachable())
    backwards[graph.sources.index("mlp 2"), graph.targets.index("L0H0 query")] = True
    with pytest.raises(StatisticsError, match="mlp 2 → L0H0 query"):
        run_edge_circuits(scope, pairs(), [backwards])
    with pytest.raises(UnsupportedModelError):
        run_edge_circuits(scopes("gemma2"), pairs(), [Graph(scopes("gemma2")).reachable()])
    edges = Edges(("embedding",), ("logits",), np.array([[1.0]]), np.zeros(1), 1)
    with pytest.raises(StatisticsError, match="0 to 1"):
        top_edges(edges, 2)
    with pytest.raises(StatisticsError, match=r"0\.\.1"):
        edge_counts(edges, (2.0,))
    with pytest.raises(UnknownNameError, match="banana"):
        top_edges(edges, 1, "banana")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="L9H9"):
        edges_from(edges, "L9H9")
