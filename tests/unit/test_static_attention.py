"""Static attention: against the dense matrix, on planted heads, and how its weights are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from _dense_call import weights_of
from datasets import Dataset
from torch import Tensor

from attnscope.analyses.distance_weights import distance_weights
from attnscope.core.batch import Batch
from attnscope.core.errors import TaskError, UnknownHeadError, UnsupportedModelError
from attnscope.core.ids import HeadId
from attnscope.edits._base import Edit
from attnscope.edits.knock_out import KnockOut
from attnscope.edits.knock_out_sinks import KnockOutSinks
from attnscope.edits.scale_head import ScaleHead
from attnscope.edits.static_attention import StaticAttention
from attnscope.edits.uniform_attention import UniformAttention
from attnscope.engine._distances import Distances
from attnscope.engine.recordings import record_heads
from attnscope.engine.reference import Reference, measure_reference
from attnscope.models._loading import load
from attnscope.testbed import planted
from attnscope.testbed.planted import PlantedSpec
from attnscope_kernels import AttentionCall, attend
from attnscope_kernels.testing import FEATURES, forbid_square, random_call

HEADS = (HeadId(0, 1), HeadId(0, 2))
EDGES = (0, 1, 2, 5, 9, 30, 100)
SHAPES: dict[str, dict[str, Any]] = {
    **{name: options for name, options in FEATURES.items() if options.get("causal", True)},
    "decode": {"queries": 1, "keys": 64, "sink_logits": True, "padding": "left"},
    "chunk": {"queries": 20, "keys": 64, "padding": "right"},
}


def static(weights: Tensor, sinks: Tensor | None = None) -> StaticAttention:
    return StaticAttention(HEADS, {0: weights}, EDGES, {} if sinks is None else {0: sinks})


def edited(call: AttentionCall, *edits: Edit) -> Tensor:
    for edit in edits:
        call = edit.call(call)
    z = attend(call).output
    assert z is not None
    for edit in edits:
        z = edit.output(call, z)
    return z


def dense(call: AttentionCall, weights: Tensor, sinks: Tensor) -> Tensor:
    """The same from a matrix: what is visible weighs by distance, times its bias."""
    visible = weights_of(call)[0] > 0
    query = call.offset + torch.arange(call.q.shape[2])
    distance = query[:, None] - torch.arange(call.k.shape[2])
    bins = torch.searchsorted(torch.tensor(EDGES), distance.clamp(min=0), right=True) - 1
    w = weights.double()[:, bins] * visible
    if call.key_bias is not None:
        w = w * call.key_bias.double().exp()[:, :, None]
    rows = (w / (w.sum(-1, keepdim=True) + sinks.double()[:, None, None])).nan_to_num()
    z = rows @ call.v.double().repeat_interleave(call.group_size, 1)
    if call.padded_queries is not None:
        z = z.masked_fill(call.padded_queries[:, None, :, None], 0)
    return z


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_the_dense_definition(name: str) -> None:
    call = random_call(dtype=torch.float64, **SHAPES[name])
    call = call.replace(knockouts=(), head_output=None)
    heads = call.q.shape[1]
    weights, sinks = torch.rand(heads, 6) + 0.1, torch.rand(heads)
    got, plain = edited(call, static(weights, sinks)), edited(call)
    expected = plain.clone()
    expected[:, [1, 2]] = dense(call, weights, sinks)[:, [1, 2]]
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


def test_equal_weights_are_uniform_attention_and_scaling_acts_on_it() -> None:
    call = random_call(dtype=torch.float64, padding="left")
    edit = static(torch.ones(4, 6))
    torch.testing.assert_close(edited(call, edit), edited(call, UniformAttention(HEADS)), atol=1e-9, rtol=1e-9)
    hidden = KnockOutSinks({0: (0, 3)}, HEADS)
    both = edited(call, UniformAttention(HEADS), hidden)
    torch.testing.assert_close(edited(call, edit, hidden), both, atol=1e-9, rtol=1e-9)
    expected = edited(call, edit)
    expected[:, [1, 2]] *= 0.5
    for order in ((edit, ScaleHead(HEADS, 0.5)), (ScaleHead(HEADS, 0.5), edit)):
        torch.testing.assert_close(edited(call, *order), expected)


def test_no_square_and_no_query_is_read() -> None:
    call = random_call(queries=509, padding="left").replace(window=None)
    edit = StaticAttention(HEADS, {0: torch.rand(4, 2)}, (0, 3, 600))
    with forbid_square(509):
        got = edit.output(call, torch.zeros_like(call.q[..., : call.v.shape[3]]))
    other = edit.output(call.replace(q=call.q + 1), torch.zeros_like(got))
    assert torch.equal(got, other)


def test_refusals() -> None:
    call = random_call(queries=64)
    with pytest.raises(TaskError, match="found distances up to 63; expected at most 29"):
        edited(call, StaticAttention(HEADS, {0: torch.ones(4, 2)}, (0, 3, 30)))
    with pytest.raises(TaskError, match="knockouts in the same heads"):
        edited(call, KnockOut(keys=(0,)), static(torch.ones(4, 6)))
    assert edited(call, KnockOut(keys=(0,), heads=(0,)), static(torch.ones(4, 6))).isfinite().all()
    with pytest.raises(TaskError, match="6 weights a head and 3 edges"):
        StaticAttention(HEADS, {0: torch.ones(4, 6)}, (0, 1, 2))
    with pytest.raises(UnknownHeadError, match="L0H2: found no weights"):
        StaticAttention(HEADS, {0: torch.ones(2, 2)}, (0, 1, 2))


@pytest.mark.parametrize("sink", [0.0, 0.7])
def test_a_softmax_of_distance_comes_back(sink: float) -> None:
    rng = np.random.default_rng(0)
    edges = np.array([0, 1, 2, 3, 4, 8, 16, 48])
    true = np.exp(rng.normal(size=(2, 7)) * 2)
    keys = np.arange(20, 41)
    pairs = np.clip(keys[:, None] - edges[:-1], 0, np.diff(edges))
    sums = true @ pairs.T + sink
    mass = (true[:, None] * pairs / sums[..., None]).sum(1)
    missed = (sink / sums).sum(1)
    weights, base = distance_weights(mass, missed, keys, np.ones(len(keys)), edges)
    largest = np.maximum(true.max(1), sink)
    np.testing.assert_allclose(weights, true / largest[:, None], rtol=1e-4)
    np.testing.assert_allclose(base, sink / largest, rtol=1e-4)


@pytest.fixture(scope="module")
def measured() -> tuple[Any, PlantedSpec, Dataset, Reference]:
    kinds = {
        HeadId(0, 0): "positional",
        HeadId(0, 2): "previous_token",
        HeadId(0, 3): "uniform",
        HeadId(1, 0): "induction",
    }
    spec = PlantedSpec(n_layers=2, heads=kinds)
    model, tokenizer = planted.plant(spec)
    scope = load(model, tokenizer=tokenizer)
    reference = measure_reference(scope, planted.text_prompts(spec, n=4, length=256, seed=1))
    return scope, spec, planted.repeat_prompts(spec, n=2, period=60, seed=2), reference


@pytest.mark.parametrize("kind", ["positional", "previous_token", "uniform"])
def test_planted_heads_that_look_by_distance_stay(
    measured: tuple[Any, PlantedSpec, Dataset, Reference], kind: str
) -> None:
    scope, spec, prompts, reference = measured
    for head in spec.of_kind(kind):
        own, fixed = before_and_after(scope, prompts, head, reference)
        if kind == "positional":  # what stands that far back is BOS, whose key planted heads leave out
            own, fixed = (
                torch.cat([z[:, : spec.far_distance], z[:, spec.far_distance + 1 :]], 1) for z in (own, fixed)
            )
        assert (own - fixed).abs().max() < 1e-5 * own.abs().max()


def test_a_planted_head_that_looks_by_content_changes(
    measured: tuple[Any, PlantedSpec, Dataset, Reference],
) -> None:
    scope, spec, prompts, reference = measured
    (head,) = spec.of_kind("induction")
    own, fixed = before_and_after(scope, prompts, head, reference)
    assert (own - fixed).abs().max() > 0.5 * own.abs().max()


def before_and_after(scope: Any, prompts: Dataset, head: HeadId, reference: Reference) -> tuple[Tensor, Tensor]:
    edit = reference.static_attention([head])
    return tuple(record_heads(scope, prompts, [head], edits=edits).values[head.layer] for edits in ([], [edit]))  # type: ignore[return-value]


def test_a_head_that_looks_beyond_the_start_keeps_what_it_does_there() -> None:
    angle = torch.arange(16.0) * torch.pi / 16
    q, k = (torch.stack([x.cos(), x.sin()], -1)[None, None] for x in (angle - torch.pi / 4, angle))
    v = torch.eye(16)[None, None]
    call = AttentionCall(0, 600 * q, k, v[..., :2], 1.0).replace(v=v)  # all on the key 4 back, or on the first
    batch = Batch(torch.zeros(1, 16, dtype=torch.long), torch.ones(1, 16, dtype=torch.bool), (0,), 1)
    info = load(backend="toy").info
    distances = Distances(info, [16], "auto")
    distances.add(call, batch)
    weights, sinks = distances.weights()
    assert 0 < weights[0][0, 0] < 1e-8
    edit = StaticAttention((HeadId(0, 0),), weights, distances.edges, sinks)
    own, fixed = attend(call).output, edit.output(call, torch.zeros(1, 1, 16, 16))
    assert own is not None
    torch.testing.assert_close(fixed[:, :, 4:], own[:, :, 4:], atol=1e-5, rtol=0)
    torch.testing.assert_close(fixed[:, :, :4], own[:, :, :4], atol=0.05, rtol=0)


def test_sink_logits_keep_their_share() -> None:
    call = random_call(batch=2, queries=32, heads=4, kv_heads=2, sink_logits=True)
    call = call.replace(logit_scale=torch.zeros(4))  # uniform beside the sink logit: a function of distance alone
    batch = Batch(torch.zeros(2, 32, dtype=torch.long), torch.ones(2, 32, dtype=torch.bool), (0, 1), 2)
    distances = Distances(load(backend="toy").info, [32, 32], "auto")
    distances.add(call, batch)
    weights, sinks = distances.weights()
    edit = StaticAttention(HEADS, weights, distances.edges, sinks)
    torch.testing.assert_close(edited(call, edit), edited(call), atol=1e-5, rtol=1e-5)
    without = StaticAttention(HEADS, weights, distances.edges)
    assert not torch.allclose(edited(call, without), edited(call), atol=1e-2)


def test_a_reference_needs_causal_attention_and_prompts_within_reach() -> None:
    info = load(backend="toy").info
    with pytest.raises(UnsupportedModelError, match="causal"):
        Distances(info.model_copy(update={"causal": False}), [4], "auto")
    with pytest.raises(TaskError, match="4 at most, 4 skipped"):
        measure_reference(load(backend="toy"), Dataset.from_dict({"input_ids": [[1, 2, 3, 4]]}), skip=4)
