"""Collectors on calls that no toy model makes: sink logits, far distances, windows, blind queries, drained heads."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from _dense_call import batch_of, finalized, info_of, seen_by, weights_of
from torch import Tensor

from attnscope.collectors import value_drain
from attnscope.collectors.local_mass import LocalMass
from attnscope.collectors.mass_by_distance import EDGES, MassByDistance
from attnscope.collectors.mean_distance import MeanDistance
from attnscope.collectors.positional_share import PositionalShare
from attnscope.collectors.received_max import ReceivedMax
from attnscope.core.batch import DISTANCE_GRID, Batch
from attnscope.core.errors import StatisticsError, TaskError
from attnscope.engine.folds import Transfer
from attnscope_kernels import AttentionCall
from attnscope_kernels.testing import random_call

CALLS = {
    "plain": {},
    "window": {"window": 90},
    "sink": {"sink_logits": True},
    "left": {"padding": "left"},
    "right": {"padding": "right", "sink_logits": True, "window": 17},
}


def call_of(name: str, queries: int = 200, **more) -> AttentionCall:
    return random_call(queries=queries, **{**CALLS[name], **more})


def counted(call: AttentionCall) -> Tensor:
    return call.valid_queries[:, None].double()


# --- distances ---------------------------------------------------------------------------------------------------


def test_the_grid_is_unit_bins_then_eight_then_two_an_octave() -> None:
    assert DISTANCE_GRID[:65] == tuple(range(65))
    assert DISTANCE_GRID[64:74] == (64, 72, 80, 88, 96, 104, 112, 120, 128, 144)
    assert DISTANCE_GRID[-1] == 2**21
    assert DISTANCE_GRID[95:101] == (960, 1024, 1536, 2048, 3072, 4096)
    assert len(DISTANCE_GRID) == 64 + 8 * 4 + 2 * 11 + 1
    assert set(EDGES) <= set(DISTANCE_GRID)
    assert EDGES[-1] == DISTANCE_GRID[-1]


@pytest.mark.parametrize(("tokens", "last"), [(1, 1), (2, 2), (64, 64), (65, 72), (72, 72), (73, 80), (131072, 131072)])
def test_edges_are_cut_where_no_distance_reaches(tokens: int, last: int) -> None:
    ids = torch.zeros(1, 1, dtype=torch.long).expand(1, tokens)
    edges = Batch(ids, ids == 0, (0,), 1).distance_edges
    assert edges == DISTANCE_GRID[: len(edges)]
    assert edges[-1] == last
    assert edges[-2] < tokens <= edges[-1]


def test_prompts_beyond_the_grid_are_refused() -> None:
    ids = torch.zeros(1, 1, dtype=torch.long).expand(1, 2**21 + 1)
    with pytest.raises(TaskError, match="found 2097153 tokens; expected at most 2097152"):
        _ = Batch(ids, ids == 0, (0,), 1).distance_edges


def test_mass_by_distance_sums_whole_bins() -> None:
    call = call_of("plain")
    weights, _ = weights_of(call)
    distance = torch.arange(200)[:, None] - torch.arange(200)
    found = finalized(MassByDistance(), call).mass_by_distance[0]
    assert found.distance_bin.values.tolist() == [0, 1, 2, 4, 8, 16, 32, 64, 128]
    for low, high in pairwise(EDGES[:10]):
        inside = (distance >= low) & (distance < high)
        expected = (weights * inside).sum((0, 2, 3)) / (2 * 200)
        np.testing.assert_allclose(found.sel(distance_bin=low), expected, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 64, 72, 2**21])
def test_local_mass_at_any_edge(window: int) -> None:
    call = call_of("plain")
    weights, _ = weights_of(call)
    near = (torch.arange(200)[:, None] - torch.arange(200)) < window
    found = finalized(LocalMass(window=window), call).local_mass[:, 0]
    np.testing.assert_allclose(found, (weights * near).sum((2, 3)) / 200, rtol=1e-5)


@pytest.mark.parametrize(
    ("window", "near"),
    [(65, "64 or 72"), (0, "1 or 1"), (100, "96 or 104"), (2000, "1536 or 2048"), (2**22, "1572864 or 2097152")],
)
def test_a_window_inside_a_bin_is_refused(window: int, near: str) -> None:
    with pytest.raises(StatisticsError, match=f"window: found {window}; expected an edge.*Take {near}"):
        LocalMass(window=window)


# --- positional share --------------------------------------------------------------------------------------------


def divergence(calls: list[AttentionCall]) -> np.ndarray:
    """Mean KL of rows to static rows by the definition, `[H]`; the static weight is constant within a bin."""
    edges, heads = torch.tensor(DISTANCE_GRID), calls[0].q.shape[1]
    mass, pairs = torch.zeros(heads, len(edges)), torch.zeros(len(edges))
    dense = [weights_of(call) for call in calls]
    sink, queries = torch.zeros(heads), 0.0
    for call, (weights, sink_mass) in zip(calls, dense, strict=True):
        bins, visible = bins_of(call)
        for b in range(call.q.shape[0]):
            pairs.index_add_(0, bins[visible[b]], torch.ones(int(visible[b].sum())))
            mass.index_add_(1, bins[visible[b]], weights[b][:, visible[b]].float())
        sink += (sink_mass * counted(call)).sum((0, 2)).float()
        queries += float(counted(call).sum())
    weight = mass.double() / pairs.clamp_min(1)
    total = torch.zeros(heads, dtype=torch.float64)
    for call, (weights, sink_mass) in zip(calls, dense, strict=True):
        bins, visible = bins_of(call)
        static = weight[:, bins] * visible[:, None]
        outcomes = torch.cat([static, (sink.double() / queries)[None, :, None, None].expand(*static.shape[:3], 1)], -1)
        outcomes = outcomes / outcomes.sum(-1, keepdim=True).clamp_min(1e-300)
        rows = torch.cat([weights, sink_mass[..., None]], -1)
        kl = torch.where(rows > 0, rows * (rows.clamp_min(1e-300) / outcomes.clamp_min(1e-300)).log(), 0.0).sum(-1)
        total += (kl * counted(call)).sum((0, 2))
    return (total / queries).numpy()


def bins_of(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """The distance bin of every pair `[T, T]`, and the pairs `[B, T, T]` that are visible to a real query."""
    t = call.q.shape[2]
    distance = torch.arange(t)[:, None] - torch.arange(t)
    visible = (distance >= 0) & (distance < (call.window or t)) & batch_of(call).valid[:, None]
    return torch.bucketize(distance.clamp_min(0), torch.tensor(DISTANCE_GRID), right=True) - 1, (
        visible & call.valid_queries[..., None]
    )


@pytest.mark.parametrize("name", CALLS)
def test_positional_share_is_the_mean_kl_to_the_binned_static_row(name: str) -> None:
    calls = [call_of(name, 200, seed=1), call_of(name, 90, seed=2), call_of(name, 1, seed=3)]
    if CALLS[name].get("sink_logits"):
        calls = [call.replace(sink_logits=calls[0].sink_logits) for call in calls]
    found = finalized(PositionalShare(), *calls).positional_share[0]
    np.testing.assert_allclose(found, np.exp(-divergence(calls)), rtol=2e-5)


@pytest.mark.parametrize("sinks", [None, [-20.0, -1.0, 0.0, 9.0]])
def test_positional_share_is_one_where_all_rows_are_the_same(sinks: list[float] | None) -> None:
    call = call_of("plain", window=1).replace(q=torch.zeros(2, 4, 200, 16))
    call = call.replace(sink_logits=None if sinks is None else torch.tensor(sinks))
    np.testing.assert_allclose(finalized(PositionalShare(), call).positional_share, 1, atol=1e-5)


# --- mean distance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("more", [{}, {"blind": True}, {"causal": False, "sink_logits": False}])
def test_mean_distance_is_the_dense_formula(name: str, more: dict) -> None:
    call = call_of(name, **more)
    weights, _ = weights_of(call)
    sees = counted(call) * (weights.sum(-1) > 0)
    distance = (torch.arange(200)[:, None] - torch.arange(200)).abs().double()
    expected = ((weights * distance).sum(-1) * sees).sum(-1) / sees.sum(-1)
    found = finalized(MeanDistance(), call).mean_distance[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_mean_distance_of_a_local_head_in_a_long_prompt() -> None:
    t = 4000
    angle = torch.arange(t)[:, None] * torch.logspace(0.4, -1, 8)
    waves = torch.cat([angle.cos(), angle.sin()], -1)[None, None]  # logits peak where the distance is 0
    call = AttentionCall(layer=0, q=waves, k=waves, v=waves, scale=4.0)
    weights, _ = weights_of(call)
    distance = (torch.arange(t)[:, None] - torch.arange(t)).clamp_min(0).double()
    expected = (weights * distance).sum(-1).mean().item()
    assert 1 < expected < 3
    assert finalized(MeanDistance(), call).mean_distance.item() == pytest.approx(expected, rel=1e-4)


def test_mean_distance_of_a_causal_model_asks_no_query_statistic_but_lse() -> None:
    call = call_of("plain")
    want = MeanDistance().want(batch_of(call), info_of(call))
    assert want.received
    assert not want.mean_distance
    mixed = call.replace(causal=False)
    other = MeanDistance().want(batch_of(mixed), info_of(mixed))
    assert other.mean_distance
    assert not other.received


def test_a_model_that_is_not_as_causal_as_described_is_refused() -> None:
    call = call_of("plain", causal=False)
    seen = seen_by(MeanDistance(), call.replace(causal=True))
    object.__setattr__(seen, "call", call)
    with pytest.raises(StatisticsError, match="mean_distance of layer 0: found attention to later keys"):
        MeanDistance().measure(seen)


# --- values ------------------------------------------------------------------------------------------------------


def drains(call: AttentionCall, projection: Tensor) -> np.ndarray:
    v = call.v.double().repeat_interleave(call.group_size, 1)
    norms = torch.einsum("bhtd,hdm->bhtm", v, projection.double()).norm(dim=-1)
    return (norms[..., 0] / norms[..., 1:].mean(-1)).numpy()


@pytest.mark.parametrize(("m", "dtype"), [(64, torch.float32), (64, torch.float64), (5, torch.float32)])
def test_value_drain_in_chunks(m: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    call = call_of("plain", 150, dtype=dtype)
    projection = torch.randn(4, 16, m, generator=torch.Generator().manual_seed(0)).to(dtype)
    whole = finalized(value_drain.ValueDrain(), call, projection=projection).value_drain[:, 0]
    np.testing.assert_allclose(whole, drains(call, projection), rtol=1e-5)
    monkeypatch.setattr(value_drain, "CHUNK_BYTES", 4096)
    np.testing.assert_allclose(
        finalized(value_drain.ValueDrain(), call, projection=projection).value_drain[:, 0], whole, rtol=1e-6
    )


def test_value_drain_of_low_precision_values() -> None:
    call = call_of("plain", 150, dtype=torch.bfloat16)
    projection = torch.randn(4, 16, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = finalized(value_drain.ValueDrain(), call, projection=projection).value_drain[:, 0]
    np.testing.assert_allclose(found, drains(call, projection), rtol=1e-4)


def test_a_head_that_writes_nothing_has_no_value_drain() -> None:
    call = call_of("plain", 50)
    projection = torch.randn(4, 16, 64)
    projection[1] = 0
    found = finalized(value_drain.ValueDrain(), call, projection=projection).value_drain[:, 0]
    assert found.isnull().values.tolist() == [[False, True, False, False]] * 2


# --- small parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 1, 17, 63, 200])
@pytest.mark.parametrize("padding", [None, "left", "right"])
def test_queries_seeing_a_key(window: int | None, padding: str | None) -> None:
    call = random_call(queries=63, window=window, padding=padding)
    seen = seen_by(ReceivedMax(), call)
    _, visible = bins_of(call)
    assert torch.equal(seen.queries_seeing, visible.sum(1))


def test_a_transfer_keeps_shapes_and_order() -> None:
    parts = [torch.arange(6).view(2, 3), torch.tensor(7.5), torch.zeros(0, 2)]
    first, second, third = Transfer(parts).arrays()
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second == 7.5
    assert third.shape == (0, 2)
    assert first.dtype == np.float64
