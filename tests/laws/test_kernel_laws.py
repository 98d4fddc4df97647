"""The laws that every kernel implementation keeps; each available one is tested, also one that arrives later."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from attnscope_kernels import AttentionCall, HeadOutput, Screen, TopKeys, Want, attend, attention_tile, available
from attnscope_kernels.errors import ContractError, ImplementationUnavailableError
from attnscope_kernels.impl import reference, tiled
from attnscope_kernels.impl._sample import draw
from attnscope_kernels.impl._tiled_screen import Streaming
from attnscope_kernels.testing import (
    FEATURES,
    SquareTensorError,
    compare,
    forbid_square,
    poisoned_memory,
    random_call,
    random_want,
    worse_than_reference,
)

# The interpreter is too slow for all of these: test_triton_interpreted.py has its share.
AVAILABLE = [name for name, reason in available().items() if reason is None and name != "triton"]
STREAMING = [name for name in AVAILABLE if name != "reference"]
SHAPES = {
    "one": {"queries": 1},
    "odd": {"queries": 63},
    "blocks": {"queries": 111, "heads": 8, "kv_heads": 1},
    "prime": {"queries": 251, "heads": 4, "kv_heads": 4},
    "long": {"queries": 1000, "heads": 2, "kv_heads": 1, "batch": 1},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_error_no_worse_than_reference(implementation: str, shape: str, feature: str) -> None:
    call = random_call(**{**SHAPES[shape], **FEATURES[feature]})
    want = random_want(call)
    assert not worse_than_reference(attend(call, want, implementation), call, want)


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("feature", ["plain", "all", "bidirectional"])
@pytest.mark.parametrize("gqa", [1, 4, 8])
def test_every_precision_and_group_size(implementation: str, dtype: torch.dtype, feature: str, gqa: int) -> None:
    call = random_call(queries=130, heads=8, kv_heads=8 // gqa, dtype=dtype, **FEATURES[feature])
    want = random_want(call)
    result = attend(call, want, implementation)
    assert result.output is not None
    assert result.output.dtype == dtype
    assert result.received is not None
    assert result.received.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not worse_than_reference(result, call, want)


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("queries", [1, 7, 40, 97])
@pytest.mark.parametrize("feature", ["plain", "all"])
def test_any_query_offset(implementation: str, queries: int, feature: str) -> None:
    for offset in {0, 3, 97 - queries}:
        if offset + queries <= 97:
            call = random_call(queries=queries, keys=97, q_offset=offset, **FEATURES[feature])
            want = random_want(call)
            assert not worse_than_reference(attend(call, want, implementation), call, want)


@pytest.mark.parametrize("implementation", AVAILABLE)
@pytest.mark.parametrize(("queries", "keys"), [(50, 20), (20, 50)])
def test_cross_attention(implementation: str, queries: int, keys: int) -> None:
    for window in (None, 6):
        call = random_call(queries=queries, keys=keys, causal=False, window=window, padding="right")
        want = random_want(call)
        assert not worse_than_reference(attend(call, want, implementation), call, want)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_output_is_scaled_dot_product_attention(implementation: str) -> None:
    call = random_call(queries=200, dtype=torch.float64)
    expected = functional.scaled_dot_product_attention(call.q, call.k, call.v, is_causal=True, enable_gqa=True)
    for want in (None, Want(lse=True)):
        torch.testing.assert_close(attend(call, want, implementation).output, expected)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_output_is_eager_softmax(implementation: str) -> None:
    call = random_call(queries=70, dtype=torch.float64, heads=2, kv_heads=2, padding="left")
    hidden = ~call.key_valid[:, None, None, :] | torch.ones(70, 70).triu(1).bool()
    logits = (call.scale * call.q @ call.k.transpose(-1, -2)).masked_fill(hidden, -math.inf)
    expected = (torch.softmax(logits, -1) @ call.v).nan_to_num(nan=0.0)  # rows that see nothing give 0
    torch.testing.assert_close(attend(call, Want(), implementation).output, expected)


@pytest.mark.parametrize("implementation", AVAILABLE)
@pytest.mark.parametrize("feature", FEATURES)
def test_conservation(implementation: str, feature: str) -> None:
    """Masses sum to 1 with the sink's share, received sums to the queries that count, entropy ≤ ln n."""
    call = random_call(queries=90, dtype=torch.float64, **FEATURES[feature])
    everything = torch.zeros(2, 90, dtype=torch.long)
    want = Want(
        lse=True,
        entropy=True,
        max_prob=True,
        received=True,
        received_max=True,
        mass_in={"all": everything},
        mass_by_distance=(0, 1, 13, 90),
        pooled_map=(1, 9),
    )
    result = attend(call, want, implementation)
    mass = result.mass_in["all"][..., 0]
    counts = ~result.lse.isnan()
    sink = torch.zeros_like(mass) if call.sink_logits is None else (call.sink_logits[:, None] - result.lse).exp()
    torch.testing.assert_close((mass + sink)[counts], torch.ones_like(mass[counts]))
    total = mass.nan_to_num(nan=0.0).sum(-1)
    torch.testing.assert_close(result.received.sum(-1), total)
    torch.testing.assert_close(result.mass_by_distance.sum(-1), total)
    torch.testing.assert_close(result.pooled_map.sum((-1, -2)), total / counts.sum(-1))
    if call.sink_logits is None:
        assert torch.equal(total.round(), counts.sum(-1).double())
    if feature not in ("blind", "all", "knockouts", "bidirectional_window", "holes", "bias"):
        assert torch.equal(counts, call.valid_queries[:, None].expand_as(counts))
    outcomes = 90 + (call.sink_logits is not None)
    assert bool((result.entropy[counts] <= math.log(outcomes) + 1e-9).all())
    assert bool((result.entropy[counts] >= 0).all())
    assert bool((result.max_prob[counts] <= 1 + 1e-12).all())
    assert bool((result.received_max <= result.received + 1e-12).all())


@pytest.mark.parametrize("implementation", AVAILABLE)
@pytest.mark.parametrize("feature", ["plain", "all", "window"])
def test_chunks_combine_to_the_whole(implementation: str, feature: str) -> None:
    call = random_call(queries=101, dtype=torch.float64, **FEATURES[feature])
    call = call.replace(query_valid=call.valid_queries)
    want = Want(lse=True, entropy=True, received=True, received_max=True, mass_by_distance=(0, 1, 8, 101))
    whole = attend(call, want, implementation)
    chunks = []
    for first, last in ((0, 40), (40, 41), (41, 101)):
        knockouts = tuple(type(pair)(pair.heads, pair.queries[:, first:last], pair.keys) for pair in call.knockouts)
        chunk = call.replace(
            q=call.q[:, :, first:last],
            query_valid=call.query_valid[:, first:last],
            q_offset=first,
            knockouts=knockouts,
        )
        chunks.append(attend(chunk, want, implementation))
    for name in ("output", "lse", "entropy"):
        joined = torch.cat([getattr(chunk, name) for chunk in chunks], dim=2)
        torch.testing.assert_close(joined, getattr(whole, name), equal_nan=True)
    for name in ("received", "mass_by_distance"):
        torch.testing.assert_close(sum(getattr(chunk, name) for chunk in chunks), getattr(whole, name))
    most = torch.stack([chunk.received_max for chunk in chunks]).amax(0)
    torch.testing.assert_close(most, whole.received_max)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_batch_split_is_the_whole(implementation: str) -> None:
    call = random_call(batch=3, queries=65, padding="right", dtype=torch.float64)
    want = Want(entropy=True, received=True, mean_distance=True, pooled_map=(4, 4))
    whole = attend(call, want, implementation)
    for row in range(3):
        one = slice(row, row + 1)
        single = attend(
            call.replace(q=call.q[one], k=call.k[one], v=call.v[one], key_valid=call.key_valid[one]),
            want,
            implementation,
        )
        for name in ("output", "entropy", "received", "mean_distance", "pooled_map"):
            torch.testing.assert_close(getattr(single, name), getattr(whole, name)[one], equal_nan=True)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_padding_side_changes_nothing(implementation: str) -> None:
    """Padded queries and keys count nowhere: statistics equal those of the prompt alone."""
    alone = random_call(batch=1, queries=45, dtype=torch.float64)
    want = Want(entropy=True, received=True, max_prob=True, mass_by_distance=(0, 1, 4, 45))
    expected = attend(alone, want, implementation)
    for left, right in ((20, 0), (0, 20)):
        q, k, v = (functional.pad(x, (0, 0, left, right), value=0.7) for x in (alone.q, alone.k, alone.v))
        valid = functional.pad(torch.ones(1, 45, dtype=torch.bool), (left, right))
        result = attend(alone.replace(q=q, k=k, v=v, key_valid=valid, q_offset=None), want, implementation)
        inner = slice(left, left + 45)
        for name in ("output", "entropy", "max_prob", "received"):
            torch.testing.assert_close(getattr(result, name)[:, :, inner], getattr(expected, name))
        assert bool(result.entropy[:, :, :left].isnan().all())
        assert bool(result.entropy[:, :, left + 45 :].isnan().all())
        torch.testing.assert_close(result.mass_by_distance, expected.mass_by_distance)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_explicit_query_validity(implementation: str) -> None:
    call = random_call(queries=77, sink_logits=True)
    call = call.replace(query_valid=torch.rand(2, 77) < 0.5)
    want = random_want(call)
    result = attend(call, want, implementation)
    assert torch.equal(result.entropy.isnan(), ~call.query_valid[:, None].expand_as(result.entropy))
    assert not bool(result.output.isnan().any())
    assert not worse_than_reference(result, call, want)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_no_unwritten_output(implementation: str) -> None:
    for feature in ("plain", "all", "blind"):
        call = random_call(queries=83, **FEATURES[feature])
        want = random_want(call)
        clean = attend(call, want, implementation)
        with poisoned_memory():
            poisoned = attend(call, want, implementation)
        assert max(compare(poisoned, clean).values()) == 0  # also: deterministic


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_inputs_are_not_mutated(implementation: str) -> None:
    call = random_call(queries=50, **FEATURES["all"])
    before = [x.clone() for x in (call.q, call.k, call.v, call.sink_logits, call.key_valid)]
    attend(call, random_want(call), implementation)
    for old, new in zip(before, (call.q, call.k, call.v, call.sink_logits, call.key_valid), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_only_what_was_wanted(implementation: str) -> None:
    result = attend(random_call(), Want(output=False, entropy=True), implementation)
    assert result.implementation == implementation
    assert result.output is None
    assert result.lse is None
    assert result.received is None
    assert not result.mass_at
    assert result.entropy is not None


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_transposed_memory_layout(implementation: str) -> None:
    """Models hand over views of [B, T, H, D]."""
    call = random_call(queries=66, kv_heads=2)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (call.q, call.k, call.v))
    want = random_want(call)
    assert not worse_than_reference(attend(call.replace(q=q, k=k, v=v), want, implementation), call, want)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_large_logits(implementation: str) -> None:
    """Rows that are almost one-hot, with logits in the hundreds."""
    call = random_call(queries=64).replace(scale=30.0)
    want = Want(lse=True, entropy=True, max_prob=True, received=True)
    assert not worse_than_reference(attend(call, want, implementation), call, want)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_top_keys_beyond_the_visible_are_missing(implementation: str) -> None:
    call = random_call(batch=1, queries=5)
    want = Want(top_keys={"x": TopKeys(torch.tensor([[0, 4, -1]]), 9)})
    weights, keys = attend(call, want, implementation).top_keys["x"]
    assert (keys >= 0).sum(-1).tolist() == [[[1, 5, 0]] * 4]
    assert torch.equal(weights.isnan(), keys < 0)
    assert weights[0, :, 0, 0].tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("feature", FEATURES)
def test_no_square_tensor(implementation: str, feature: str) -> None:
    call = random_call(queries=509, batch=1, heads=4, **FEATURES[feature])
    want = random_want(call)
    with forbid_square(509):
        attend(call, want, implementation)
        attend(call, Want(), implementation)
        attend(call, Want(top_keys={"every": TopKeys(torch.arange(509)[None], 2)}), implementation)


def test_the_trap_for_squares_works() -> None:
    call = random_call(queries=251)
    with pytest.raises(SquareTensorError), forbid_square(251):
        attend(call, Want(), "reference")


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_gradients_through_output(implementation: str) -> None:
    """They flow, or are refused; they are never silently missing."""
    for feature in ("plain", "all"):
        call = random_call(queries=30, dtype=torch.float64, **FEATURES[feature])
        call = call.replace(q=call.q.requires_grad_())
        try:
            z = attend(call, Want(entropy=True), implementation).output
        except ContractError:
            assert implementation != "reference"
            continue
        (gradient,) = torch.autograd.grad(z.square().sum(), call.q)
        dense = attend(call, Want(), "reference").output
        (expected,) = torch.autograd.grad(dense.square().sum(), call.q)
        assert bool(expected.isfinite().all())
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_autocast_does_not_lower_precision(implementation: str) -> None:
    call = random_call(queries=40)
    want = Want(entropy=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attend(call, want, implementation)
    assert max(compare(inside, attend(call, want, implementation)).values()) == 0


@pytest.mark.parametrize("implementation", AVAILABLE)
@pytest.mark.parametrize(
    ("want", "names"),
    [
        (Want(mass_at={"x": torch.zeros(2, 9, dtype=torch.long)}), "mass_at"),
        (Want(mass_at={"x": torch.full((2, 10), 10)}), "mass_at"),
        (Want(mass_at={"x": torch.zeros(2, 10)}), "mass_at"),
        (Want(mass_in={"x": torch.zeros(2, 11, dtype=torch.long)}), "mass_in"),
        (Want(mass_in={"x": torch.full((2, 10), -2)}), "mass_in"),
        (Want(top_keys={"x": TopKeys(torch.zeros(1, 3, dtype=torch.long), 2)}), "top_keys"),
        (Want(top_keys={"x": TopKeys(torch.full((2, 3), 10), 2)}), "top_keys"),
        (Want(top_keys={"x": TopKeys(torch.zeros(2, 3, dtype=torch.long), 0)}), "top_keys"),
        (Want(mass_by_distance=(0, 2, 2)), "mass_by_distance"),
        (Want(mass_by_distance=(0,)), "mass_by_distance"),
        (Want(mass_by_distance=(-1, 2)), "mass_by_distance"),
        (Want(received_max=True, screen=Screen()), "screen"),
        (Want(pooled_max=(11, 1)), "pooled_max"),
        (Want(pooled_map=(0, 1)), "pooled_map"),
        (Want(pooled_map=(2, 11)), "pooled_map"),
    ],
)
def test_a_want_that_does_not_fit_is_named(implementation: str, want: Want, names: str) -> None:
    with pytest.raises(ContractError, match=names):
        attend(random_call(queries=10), want, implementation)


@pytest.mark.parametrize("implementation", AVAILABLE)
@pytest.mark.parametrize("feature", FEATURES)
def test_a_tile_is_the_rectangle_of_the_matrix(implementation: str, feature: str) -> None:
    call = random_call(queries=60, heads=6, kv_heads=2, dtype=torch.float64, **FEATURES[feature])
    whole = weights_of_reference(call)
    tile = attention_tile(call, [1, 4], slice(20, 47), slice(11, 55), implementation)
    torch.testing.assert_close(tile, whole[:, [1, 4], 20:47, 11:55], equal_nan=True)


def weights_of_reference(call: AttentionCall) -> torch.Tensor:
    """A through the definition, NaN in rows that do not count."""
    logits, seen = reference.attention_logits(call)
    counts = call.valid_queries[:, None] & seen.any(-1)
    return reference.attention_weights(call, logits, seen)[0].masked_fill(~counts[..., None], math.nan)


@pytest.mark.parametrize("implementation", AVAILABLE)
@pytest.mark.parametrize("feature", ["plain", "all", "values"])
@pytest.mark.parametrize("heads", [[5], [2, 3], [0, 1, 2], [5, 0], [3, 4, 5, 0, 1, 2]])
def test_selected_heads_and_queries_are_those_of_the_whole(implementation: str, feature: str, heads: list[int]) -> None:
    call = random_call(queries=50, heads=6, kv_heads=2, dtype=torch.float64, **FEATURES[feature])
    want = Want(lse=True, entropy=True)
    whole, part = attend(call, want, implementation), attend(call.select(heads, slice(9, 30)), want, implementation)
    for name in ("output", "lse", "entropy"):
        expected = getattr(whole, name)[:, heads, 9:30]
        torch.testing.assert_close(getattr(part, name), expected, equal_nan=True)


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("feature", [*FEATURES])
def test_a_screen_samples_alike_and_is_exact_where_it_says_so(implementation: str, feature: str) -> None:
    """The sample is the same for all, exact keys are exact, the bound holds, the rest is an estimate."""
    call = random_call(queries=310, heads=2, kv_heads=1, dtype=torch.float64, **FEATURES[feature])
    screen = Screen(threshold=0.2, delta=0.2, stride=12)
    first = {"first": torch.zeros(2, 310, dtype=torch.long)}
    want = Want(
        received=True,
        entropy=True,
        max_prob=True,
        mean_distance=True,
        mass_at=first,
        mass_by_distance=(0, 1, 9),
        screen=screen,
    )
    found, truth = attend(call, want, implementation), attend(call, want, "reference")
    assert max(compare(found, truth).values()) < 1e-9
    exact = attend(call, Want(received=True, entropy=True), "reference")
    everywhere = found.received_exact[:, None].expand_as(found.received)
    torch.testing.assert_close(found.received[everywhere], exact.received[everywhere])
    torch.testing.assert_close(found.received_bound[everywhere], exact.received[everywhere])
    assert bool(found.received_exact.any()) or not call.causal
    kept = ~found.entropy.isnan()
    torch.testing.assert_close(found.entropy[kept], exact.entropy[kept])
    assert int(kept.sum()) >= call.valid_queries.sum() // 12


def test_a_sample_estimates_without_bias() -> None:
    call = random_call(batch=1, queries=600, heads=2, kv_heads=1, dtype=torch.float64)
    exact = attend(call, Want(lse=True, received=True), "reference")
    estimates = []
    for seed in range(100):
        sample = draw(call, Screen(threshold=0.9, delta=0.5, stride=12, seed=seed))
        assert len(sample.rows) == 50
        assert [level.size for level in sample.levels] == [8, 4, 2, 1]
        assert sample.levels[0].weights.sum() == 600
        whole = Streaming(tiled.attend)
        estimates.append(torch.cat([whole.received(call, exact.lse, level) for level in sample.levels], dim=2))
    found = torch.stack(estimates)
    error = (found.mean(0) - exact.received) / (found.std(0) / 10).clamp_min(1e-12)
    assert bool((found.std(0) > 0).any())
    assert error[found.std(0) > 1e-9].square().mean() < 1.5  # about 1 for an estimate without bias


def test_a_screen_misses_as_seldom_as_it_says() -> None:
    sinks = torch.zeros(1, 2, 605, dtype=torch.float64)
    sinks[..., ::60] = 4.0
    call = random_call(batch=1, queries=605, heads=2, kv_heads=1, dtype=torch.float64).replace(key_bias=sinks)
    exact = attend(call, Want(received=True), "reference").received
    screen = Screen(threshold=0.05, delta=0.05, stride=12)
    large = exact / torch.arange(605, 0, -1) >= screen.threshold
    missed = exceeded = left_out = 0
    for seed in range(60):
        found = attend(call, Want(output=False, received=True, screen=replace(screen, seed=seed)), "tiled")
        missed += int((large & ~found.received_exact[:, None]).sum())
        exceeded += int((exact > found.received_bound + 1e-9).sum())
        left_out += int((~found.received_exact).sum())
    assert int(large.sum()) > 5
    assert left_out > 0
    assert missed <= 60 * int(large.sum()) * screen.delta
    assert exceeded <= 60 * 1210 * screen.delta


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_head_outputs_are_scaled_and_patched(implementation: str) -> None:
    call = random_call(queries=20, heads=3, kv_heads=1, padding="right")
    plain = attend(call, Want(), implementation).output
    patches = torch.randn(2, 1, 20, 16)
    edit = HeadOutput(torch.tensor([0.0, 1.0, 2.0])).then(HeadOutput(torch.tensor([1.0, 0.5, 1.0]), (1,), patches))
    edited = attend(call.replace(head_output=edit), Want(), implementation).output
    torch.testing.assert_close(edited[:, 0], torch.zeros_like(edited[:, 0]))
    torch.testing.assert_close(edited[:, 1], 0.5 * plain[:, 1] + patches[:, 0])
    torch.testing.assert_close(edited[:, 2], 2 * plain[:, 2])
    again = edit.then(HeadOutput(torch.tensor([1.0, 3.0, 1.0])))
    twice = attend(call.replace(head_output=again), Want(), implementation).output
    torch.testing.assert_close(twice[:, 1], 3 * edited[:, 1])


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_packed_sequences_are_those_apart(implementation: str) -> None:
    call = random_call(batch=1, queries=70, dtype=torch.float64)
    segments = torch.tensor([[0] * 20 + [1] * 1 + [4] * 49])
    want = Want(entropy=True, received=True, mass_by_distance=(0, 1, 8, 70))
    packed = attend(call.replace(segments=segments), want, implementation)
    mass = torch.zeros_like(packed.mass_by_distance)
    for first, last in ((0, 20), (20, 21), (21, 70)):
        q, k, v = (x[:, :, first:last] for x in (call.q, call.k, call.v))
        alone = attend(call.replace(q=q, k=k, v=v, q_offset=None), want, implementation)
        for name in ("output", "entropy", "received"):
            torch.testing.assert_close(getattr(packed, name)[:, :, first:last], getattr(alone, name))
        mass += alone.mass_by_distance
    torch.testing.assert_close(packed.mass_by_distance, mass)


@pytest.mark.parametrize("implementation", AVAILABLE)
def test_a_scale_of_nothing_attends_uniformly(implementation: str) -> None:
    call = random_call(queries=30, heads=2, kv_heads=1, dtype=torch.float64)
    result = attend(call.replace(logit_scale=torch.tensor([1.0, 0.0])), Want(entropy=True), implementation)
    torch.testing.assert_close(result.entropy[:, 1], torch.arange(1, 31).double().log().expand(2, -1))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"segments": torch.zeros(2, 9, dtype=torch.long)}, "segments"),
        ({"segments": torch.arange(10, 0, -1).expand(2, -1)}, "segments"),
        ({"key_bias": torch.zeros(2, 3, 10)}, "key_bias"),
        ({"logit_scale": torch.ones(3)}, "logit_scale"),
        ({"logit_scale": -torch.ones(4)}, "logit_scale"),
        ({"scale": 0.0}, "scale"),
        ({"head_output": HeadOutput(torch.ones(5))}, "head_output.scale"),
        ({"head_output": HeadOutput(torch.ones(4), (4,), torch.zeros(1, 1, 1, 16))}, "head_output.patched"),
        ({"head_output": HeadOutput(torch.ones(4), (0,))}, "head_output.patches"),
        ({"head_output": HeadOutput(torch.ones(4), (0,), torch.zeros(1, 2, 1, 16))}, "head_output.patches"),
    ],
)
def test_a_malformed_call_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(ContractError, match=name):
        attend(random_call(queries=10).replace(**change))


@pytest.mark.parametrize("selection", [{"heads": [4]}, {"heads": []}, {"queries": slice(5, 5)}])
def test_a_selection_that_holds_nothing_is_named(selection: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="selection"):
        random_call(queries=10).select(**selection)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*(name for name, reason in available().items() if reason is not None), "fastest"])
def test_a_request_never_falls_back(name: str) -> None:
    with pytest.raises(ImplementationUnavailableError, match=name):
        attend(random_call(), Want(), name)


def test_auto_records_its_choice() -> None:
    call = random_call()
    result = attend(call, random_want(call))
    assert result.implementation in STREAMING
    assert max(compare(result, attend(call, random_want(call), result.implementation)).values()) == 0
