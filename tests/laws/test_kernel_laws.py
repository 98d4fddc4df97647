"""The laws that every kernel implementation keeps; each available one is tested, also one that arrives later."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from attnscope_kernels import Screen, TopKeys, Want, attend, available
from attnscope_kernels.errors import ContractError, ImplementationUnavailableError
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
    parts = ((0, 40), (40, 41), (41, 101))
    chunks = [attend(call.select(queries=slice(*part)), want, implementation) for part in parts]
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


@pytest.mark.parametrize("name", [*(name for name, reason in available().items() if reason is not None), "fastest"])
def test_a_request_never_falls_back(name: str) -> None:
    with pytest.raises(ImplementationUnavailableError, match=name):
        attend(random_call(), Want(), name)


def test_auto_records_its_choice() -> None:
    call = random_call()
    result = attend(call, random_want(call))
    assert result.implementation in STREAMING
    assert max(compare(result, attend(call, random_want(call), result.implementation)).values()) == 0
