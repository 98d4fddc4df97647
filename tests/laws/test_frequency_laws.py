"""The laws of contextual agreement, for every implementation; Triton runs on the GPU, or in its interpreter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from _frequency_definition import ADJACENT, HALF, Largest, definition, device_of, exact_call, rotated, some_queries
from torch import Tensor

from attnscope_kernels import AttentionCall
from attnscope_kernels import frequency as module
from attnscope_kernels.errors import ContractError, ImplementationUnavailableError
from attnscope_kernels.frequency import choose, contextual_agreement
from attnscope_kernels.testing import poisoned_memory, random_call

HAS_TRITON = find_spec("triton") is not None
IMPLEMENTATIONS = [
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")),
]
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
# Triton 3.6's interpreter makes an int of a one-element array at every loop.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


@pytest.fixture(autouse=True)
def wide_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread for small tensors; and the interpreter pays by the operation, so that it gets larger blocks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if HAS_TRITON and not torch.cuda.is_available():
        from attnscope_kernels import _frequency_search

        monkeypatch.setattr(_frequency_search, "KEYS", 128)
        monkeypatch.setattr(_frequency_search, "WARPS", 128)
    yield
    torch.set_num_threads(threads)


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6, equal_nan=True)


SHAPES = {
    "one": ({"queries": 1, "head_dim": 8, "kv_heads": 4, "dtype": FP32}, HALF),
    "one_adjacent": ({"queries": 1, "head_dim": 8, "kv_heads": 1, "dtype": BF16}, ADJACENT),
    "odd": ({"queries": 63, "head_dim": 16, "kv_heads": 4, "dtype": BF16}, HALF),
    "odd_adjacent": ({"queries": 63, "head_dim": 16, "kv_heads": 1, "dtype": FP16}, ADJACENT),
    "grouped": ({"queries": 111, "head_dim": 64, "kv_heads": 1, "dtype": FP16}, HALF),
    "grouped_adjacent": ({"queries": 111, "head_dim": 64, "kv_heads": 1, "dtype": FP32}, ADJACENT),
    "padded_tile": ({"queries": 251, "head_dim": 80, "heads": 1, "kv_heads": 1, "dtype": FP32}, HALF),
    "padded_tile_adjacent": ({"queries": 251, "head_dim": 80, "heads": 2, "kv_heads": 1, "dtype": BF16}, ADJACENT),
    "long": ({"queries": 1000, "head_dim": 16, "heads": 2, "kv_heads": 1, "dtype": BF16}, HALF),
    "long_adjacent": ({"queries": 1000, "head_dim": 8, "heads": 1, "kv_heads": 1, "dtype": FP32}, ADJACENT),
    "batch": ({"batch": 2, "queries": 63, "head_dim": 8, "kv_heads": 2, "dtype": FP32}, HALF),
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_is_the_definition(implementation: str, name: str) -> None:
    shape, pairing = SHAPES[name]
    call = exact_call(implementation, **shape)
    queries = some_queries(call, 3)
    found = contextual_agreement(call, queries, 9, pairing=pairing, implementation=implementation)
    assert_same(found, definition(call, queries, 9, pairing))


FEATURES = {
    "window": {"window": 17},
    "left": {"padding": "left", "batch": 2},
    "right": {"padding": "right", "batch": 2},
    "knockouts": {"knockouts": 2},
    "blind": {"blind": True},
    "bidirectional_window": {"causal": False, "window": 9},
    "chunk": {"queries": 20, "keys": 150, "q_offset": 60},
    "cross": {"queries": 5, "keys": 40, "causal": False},
    "softcap": {"softcap": 0.5, "sink_logits": True},
    "all": {"window": 40, "padding": "left", "knockouts": 1, "blind": True, "batch": 2, "softcap": 1.0},
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", FEATURES)
def test_honours_every_mask(implementation: str, name: str) -> None:
    call = exact_call(implementation, **{"queries": 150, "head_dim": 8, "heads": 4, "kv_heads": 2, **FEATURES[name]})
    queries = some_queries(call, 4, seed=3)
    found = contextual_agreement(call, queries, 5, implementation=implementation)
    assert_same(found, definition(call, queries, 5))
    assert bool(found[:, :, 1].isnan().all())  # the query that is -1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_honours_segments(implementation: str) -> None:
    call = exact_call(implementation, queries=90, head_dim=8)
    call = call.replace(segments=(torch.arange(90, device=call.q.device) // 40)[None])
    queries = some_queries(call, 4)
    assert_same(contextual_agreement(call, queries, 5, implementation=implementation), definition(call, queries, 5))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("k", [1, 2, 40, 64, 65, 10_000])
def test_any_number_of_keys(implementation: str, k: int) -> None:
    """All keys taken means full agreement."""
    call = exact_call(implementation, queries=65, head_dim=8, heads=2, kv_heads=1)
    queries = torch.tensor([[64, 3, 0]], device=call.q.device)
    found = contextual_agreement(call, queries, k, implementation=implementation)
    assert_same(found, definition(call, queries, k))
    taken = queries[0] + 1 <= k
    assert bool((found[:, :, taken] == 1).all())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("pairing", [HALF, ADJACENT])
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_of_equal_keys_the_lowest_index_counts(implementation: str, pairing: str, levels: int) -> None:
    """Integers: most keys tie, at ±0 too, and within several splits of the keys."""
    call = exact_call(implementation, levels=levels, step=1.0, queries=300, head_dim=4, heads=2, kv_heads=1)
    queries = torch.tensor([[299, 130, 7]], device=call.q.device)
    for k in (1, 60):
        found = contextual_agreement(call, queries, k, pairing=pairing, implementation=implementation)
        assert_same(found, definition(call, queries, k, pairing))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("spread", ["equal", "outliers", "tiny", "huge", "two"])
def test_any_distribution_of_logits(implementation: str, spread: str) -> None:
    """Distributions that no normal one is near to: the search must still end, and exactly."""
    call = exact_call(implementation, queries=200, head_dim=4, heads=1, kv_heads=1)
    k = call.k.clone()
    if spread == "equal":
        k[:] = 0.5
    elif spread == "outliers":
        k[:, :, ::50] *= 2.0**40
    elif spread == "tiny":
        k *= 2.0**-120
    elif spread == "huge":
        k *= 2.0**100
    else:
        k = torch.where(torch.arange(200, device=k.device)[:, None] < 100, k * 2.0**-60, k * 2.0**60)
    queries = torch.tensor([[199, 99]], device=k.device)
    call = call.replace(k=k)
    for count in (1, 30):
        assert_same(
            contextual_agreement(call, queries, count, implementation=implementation), definition(call, queries, count)
        )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [BF16, FP16, FP32, torch.float64])
def test_real_numbers(implementation: str, dtype: torch.dtype) -> None:
    """Rounding may swap two neighbours in rank where float32 cannot tell them apart, and no more."""
    if implementation == "triton" and dtype == torch.float64:
        pytest.skip("triton has no float64")
    call = random_call(batch=1, queries=160, head_dim=16, dtype=dtype, device=device_of(implementation))
    queries = some_queries(call, 4)
    error = (
        contextual_agreement(call, queries, 20, implementation=implementation).cpu() - definition(call, queries, 20)
    ).abs()
    error = error[:, :, [0, 2, 3]]
    if dtype == torch.float64:
        assert float(error.max()) < 1e-6
    assert float(error.max()) < 1 / 20 + 1e-6
    assert float((error > 1e-6).float().mean()) < 0.02


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
@pytest.mark.parametrize("pairing", [HALF, ADJACENT])
def test_the_blocks_of_the_gpu(pairing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels' own block sizes, which the interpreter is slow at."""
    from attnscope_kernels import _frequency_search

    monkeypatch.setattr(_frequency_search, "KEYS", 32)
    monkeypatch.setattr(_frequency_search, "WARPS", 4)
    call = exact_call("triton", queries=140, head_dim=16, heads=2, kv_heads=1, padding="right")
    queries = some_queries(call, 2)
    found = contextual_agreement(call, queries, 9, pairing=pairing, implementation="triton")
    assert_same(found, definition(call, queries, 9, pairing))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_any_byte_budget_gives_the_same_numbers(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnscope_kernels import _frequency_rows

    call = exact_call(implementation, batch=2, queries=40, head_dim=4, heads=8, kv_heads=2)
    queries = some_queries(call, 3)
    expected = definition(call, queries, 9)
    for room in (1, 1 << 14):
        monkeypatch.setattr(_frequency_rows, "ROW_BYTES", room)
        monkeypatch.setattr(_frequency_rows, "KEY_BYTES", room)
        if implementation == "triton":
            from attnscope_kernels import _frequency_search

            monkeypatch.setattr(_frequency_search, "SEARCH_BYTES", room)
        assert_same(contextual_agreement(call, queries, 9, implementation=implementation), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_views_and_garbage_in_hidden_keys(implementation: str) -> None:
    """Models hand over views of `[B, T, H, D]`; what padding holds does not matter."""
    call = exact_call(implementation, batch=2, queries=63, head_dim=8, heads=2, kv_heads=1, padding="left")
    queries = some_queries(call, 3)
    expected = definition(call, queries, 9)
    k = torch.where(call.key_valid[:, None, :, None], call.k, math.nan)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (call.q, k, call.v))
    assert_same(contextual_agreement(call.replace(q=q, k=k, v=v), queries, 9, implementation=implementation), expected)
    k = k.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert_same(contextual_agreement(call.replace(q=q, k=k, v=v), queries, 9, implementation=implementation), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_logit_that_is_not_finite_is_missing(implementation: str, value: float) -> None:
    call = exact_call(implementation, queries=40, head_dim=8, heads=2, kv_heads=2)
    queries = torch.tensor([[10, 30]], device=call.q.device)
    expected = definition(call, queries, 9)
    call.k[:, 0, 20, 0] = value
    expected[:, 0, 1] = math.nan
    assert_same(contextual_agreement(call, queries, 9, implementation=implementation), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_invalid_queries_are_missing(implementation: str) -> None:
    call = exact_call(implementation, queries=40, head_dim=8)
    valid = torch.ones(1, 40, dtype=torch.bool, device=call.q.device)
    valid[:, 30] = False
    found = contextual_agreement(
        call.replace(query_valid=valid), torch.tensor([[30, 39]], device=valid.device), 3, implementation=implementation
    )
    assert found[:, :, 0].isnan().all()
    assert not found[:, :, 1].isnan().any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_queries(implementation: str) -> None:
    call = exact_call(implementation, queries=40, head_dim=8)
    none = torch.zeros(1, 0, dtype=torch.long, device=call.q.device)
    assert contextual_agreement(call, none, 3, implementation=implementation).shape == (1, 4, 0, 4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_chunk_that_holds_the_whole_logit_agrees(implementation: str) -> None:
    call = exact_call(implementation, queries=120, head_dim=16, heads=2, kv_heads=1)
    alone = torch.zeros(16, device=call.q.device)
    alone[[3, 11]] = 1.0
    queries = torch.tensor([[119, 64]], device=call.q.device)
    found = contextual_agreement(call.replace(q=call.q * alone), queries, 10, implementation=implementation)
    assert bool((found[..., 3] == 1).all())
    assert float(found[..., [0, 1, 2, 4, 5, 6, 7]].max()) < 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_half_pairs_do_not_depend_on_where_the_text_starts(implementation: str) -> None:
    """A common rotation of all positions leaves their partial logits alone, and moves those of adjacent pairs."""
    dtype = torch.float64 if implementation == "torch" else FP32
    plain = random_call(batch=1, queries=120, head_dim=16, heads=2, kv_heads=1, dtype=torch.float64)
    queries = torch.tensor([[119, 60, 90]])
    moved = {}
    for pairing in (HALF, ADJACENT):
        found = []
        for shift in (0, 1000):
            positions = shift + torch.arange(120, dtype=torch.float64)
            call = plain.replace(q=rotated(plain.q, positions), k=rotated(plain.k, positions))
            call = call.replace(**{name: getattr(call, name).to(device_of(implementation), dtype) for name in "qkv"})
            found.append(
                contextual_agreement(
                    call, queries.to(call.q.device), 12, pairing=pairing, implementation=implementation
                )
            )
        moved[pairing] = float((found[0] - found[1]).abs().mean())
    assert moved[HALF] == 0 if implementation == "torch" else moved[HALF] < 0.005
    assert moved[ADJACENT] > 0.05


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nothing_unwritten_and_the_same_numbers_twice(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for in its deterministic mode
    call = exact_call(implementation, queries=150, head_dim=8, heads=2, padding="left", batch=2, window=90)
    queries = some_queries(call, 3)
    with poisoned_memory():
        found = [contextual_agreement(call, queries, 9, implementation=implementation) for _ in range(2)]
    assert torch.equal(found[0].nan_to_num(-1), found[1].nan_to_num(-1))
    assert_same(found[0], definition(call, queries, 9))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nothing_has_a_chunk_a_query_and_a_key_axis(implementation: str) -> None:
    """31 chunks, 67 queries, 251 keys: nothing is larger than four chunks of all of them."""
    call = exact_call(implementation, queries=251, head_dim=62, heads=1, kv_heads=1)
    queries = torch.arange(67, device=call.q.device)[None] + 150
    if implementation == "triton":
        queries = queries[:, ::8].contiguous()
    with Largest() as largest:
        contextual_agreement(call, queries, 9, implementation=implementation)
    rows = -(-queries.shape[1] // 8) * 8
    assert 0 < largest.entries <= max(4 * rows * 251, 251 * 62)


def test_autocast_and_gradients_change_nothing() -> None:
    call = exact_call("torch", queries=40, head_dim=8)
    queries = some_queries(call, 3)
    with torch.autocast("cpu", dtype=BF16):
        found = contextual_agreement(call.replace(q=call.q.requires_grad_()), queries, 5)
    assert not found.requires_grad
    assert_same(found, definition(call.replace(q=call.q.detach()), queries, 5))


@pytest.mark.parametrize(
    ("changes", "arguments", "names"),
    [
        ({}, {"k": 0}, "k: found 0"),
        ({}, {"pairing": "third"}, "pairing: found 'third'"),
        ({}, {"queries": torch.zeros(2, 3, dtype=torch.long)}, r"queries: found shape \(2, 3\)"),
        ({}, {"queries": torch.zeros(3, dtype=torch.long)}, "queries"),
        ({}, {"queries": torch.zeros(1, 3)}, "queries: found torch.float32"),
        ({}, {"queries": torch.zeros(1, 3, dtype=torch.bool)}, "queries"),
        ({}, {"queries": torch.zeros(1, 3, dtype=torch.long, device="meta")}, "queries"),
        ({}, {"queries": torch.tensor([[10]])}, r"queries: found indices 10\.\.10; expected -1\.\.9"),
        ({}, {"queries": torch.tensor([[-2, 0]])}, "queries"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], arguments: dict[str, Any], names: str) -> None:
    call = random_call(batch=1, queries=10, head_dim=8).replace(**changes)
    with pytest.raises(ContractError, match=names):
        contextual_agreement(call, **{"queries": torch.zeros(1, 3, dtype=torch.long), "k": 2, **arguments})


def test_an_odd_head_dim_is_named() -> None:
    with pytest.raises(ContractError, match="head dim: found 7"):
        contextual_agreement(random_call(batch=1, queries=10, head_dim=7), torch.zeros(1, 1, dtype=torch.long), 2)


@dataclass(frozen=True, eq=False)
class NewerCall(AttentionCall):
    """A call with a field that did not exist when contextual agreement was written."""

    temperature_of_key: Tensor | None = None


def test_an_unknown_field_is_refused_only_where_it_is_used() -> None:
    call = random_call(batch=1, queries=10, head_dim=8)
    newer = NewerCall(layer=0, q=call.q, k=call.k, v=call.v, scale=1.0)
    queries = torch.tensor([[9]])
    assert torch.equal(contextual_agreement(newer, queries, 2), contextual_agreement(call, queries, 2))
    with pytest.raises(ContractError, match="temperature_of_key"):
        contextual_agreement(newer.replace(temperature_of_key=torch.ones(10)), queries, 2)


def test_a_request_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    call, queries = random_call(batch=1, queries=10, head_dim=8), torch.tensor([[9]])
    with pytest.raises(ImplementationUnavailableError, match="'fastest'"):
        contextual_agreement(call, queries, 2, implementation="fastest")
    wide = random_call(batch=1, queries=10, head_dim=258)
    double = random_call(batch=1, queries=10, head_dim=8, dtype=torch.float64)
    for uncovered, reason in ((wide, "head dim 258"), (double, "float64")):
        with pytest.raises(ImplementationUnavailableError, match=f"{reason}.*'torch'"):
            contextual_agreement(uncovered, queries, 2, implementation="triton")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImplementationUnavailableError, match="not installed"):
        contextual_agreement(call, queries, 2, implementation="triton")


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
def test_triton_refuses_the_cpu_without_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnscope_kernels import _frequency_triton

    monkeypatch.setattr(_frequency_triton, "INTERPRETED", False)
    with pytest.raises(ImplementationUnavailableError, match="on cpu"):
        contextual_agreement(
            random_call(batch=1, queries=10, head_dim=8), torch.tensor([[9]]), 2, implementation="triton"
        )


@pytest.mark.parametrize("levels", [64, 2])
def test_several_k_are_the_same_as_each_alone(levels: int) -> None:
    call = exact_call("torch", queries=70, head_dim=8, levels=levels)
    queries = some_queries(call, 9)
    ks = (5, 1, 40, 200)
    together = contextual_agreement(call, queries, ks, implementation="torch")
    for found, k in zip(together, ks, strict=True):
        alone = contextual_agreement(call, queries, k, implementation="torch")
        torch.testing.assert_close(found, alone, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(found, definition(call, queries, k).float(), rtol=0, atol=1e-6, equal_nan=True)


def test_auto_takes_torch_on_the_cpu() -> None:
    assert choose(random_call(queries=10)) == "torch"


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
def test_a_search_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnscope_kernels import _frequency_search
    from attnscope_kernels.errors import KernelError

    monkeypatch.setattr(_frequency_search, "PASSES", 1)
    call = exact_call("triton", queries=40, head_dim=8)
    with pytest.raises(KernelError, match="layer 0"):
        contextual_agreement(call, torch.tensor([[39]], device=call.q.device), 5, implementation="triton")
