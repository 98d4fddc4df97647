"""Collectors and residual statistics on a CUDA device: the CPU's numbers, few transfers, little memory."""

from __future__ import annotations

import warnings

import datasets
import numpy as np
import pytest
import torch

import attnscope
from attnscope.collectors import collectors
from attnscope.collectors import value_drain as value_drain_module
from attnscope.collectors._base import AttentionSeen, Collector, ResidualSeen
from attnscope.collectors.value_drain import cholesky_factors, written_norms
from attnscope.core.batch import Batch
from attnscope.engine.collect import collect
from attnscope.engine.folds import Folds, fold_now
from attnscope_kernels import AttentionCall, attend
from attnscope_kernels.residual import choose, residual_statistics
from attnscope_kernels.testing import random_call

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

COLUMNS = {
    "period": 8,
    "prefix": 1,
    "copies": 3,
    "query_positions": [9, 11],
    "source_positions": [4, 7],
    "gold_span": [2, 5],
    "question_positions": [9],
}
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def prompts() -> datasets.Dataset:
    rng = np.random.default_rng(0)
    rows = []
    for length in (25, 300, 33, 300):
        ids = [0, *rng.choice(np.arange(1, 60), 8, replace=False).tolist() * 60][:length]
        rows.append({"input_ids": ids, **COLUMNS})
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("name", collectors.names())
def test_equals_the_cpu(name: str) -> None:
    here, there = (attnscope.load(backend="toy", device=device) for device in ("cpu", "cuda"))
    expected, found = (collect(scope, prompts(), [name]) for scope in (here, there))
    for variable in expected.data_vars:
        np.testing.assert_allclose(found[variable].values, expected[variable].values, rtol=1e-3, atol=1e-4)


def seen(name: str, tokens: int = 2048) -> tuple[Collector, AttentionSeen | ResidualSeen]:
    """A collector and what it gets of one layer, with everything that a batch caches in place."""
    collector = collectors.get(name)()
    info = attnscope.load(backend="toy").info
    call = random_call(batch=1, queries=tokens, heads=4, kv_heads=2, head_dim=8, device="cuda", dtype=torch.bfloat16)
    ids = torch.arange(tokens, device="cuda")[None] % 8
    batch = Batch(ids, ids >= 0, (0,), 1, {key: [value] for key, value in COLUMNS.items()})
    _ = batch.starts, batch.lengths, batch.first_token
    if collector.sees == "residual":
        return collector, ResidualSeen(info, batch, 0, "block_output", torch.randn(1, tokens, 32, device="cuda"))
    projection = torch.randn(4, 8, 32, device="cuda", dtype=torch.bfloat16)
    result = attend(call, collector.want(batch, info))
    return collector, AttentionSeen(info, batch, 0, call, result, lambda: projection)


POSITIONS = ("retrieval", "passage_mass")
"""Collectors that move a small table of positions in every layer."""


@pytest.mark.parametrize("name", [name for name in collectors.names() if name not in POSITIONS])
def test_a_fold_does_not_wait_for_the_device(name: str) -> None:
    collector, what = seen(name)
    state = collector.init(what.info, 1)
    fold_now(collector, state, seen(name)[1])  # compiles and warms up
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            folds = Folds([collector], {collector.name: state})
            folds.add(what)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    folds.finish()
    waits = [str(w.message) for w in caught if "called a synchronizing" in str(w.message)]
    assert len(waits) <= (name == "value_drain"), waits  # a factorisation


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 1000, 96), (1, 4096, 4096), (3, 129, 5120), (2, 63, 257)])
@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_residual_statistics_are_those_of_float64(
    implementation: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x = torch.randn(shape, device="cuda", generator=torch.Generator("cuda").manual_seed(0)).to(dtype)
    start = torch.arange(shape[0], device="cuda") * (shape[1] // 4)
    valid = torch.arange(shape[1], device="cuda") >= start[:, None]
    found = residual_statistics(x, valid, skip=start, implementation=implementation)
    again = residual_statistics(x, valid, skip=start, implementation=implementation)
    truth = residual_statistics(x.double(), valid, skip=start)
    assert choose(x) == "triton"
    assert truth.implementation == "torch"
    for name in ("norm", "max_abs", "argmax", "dimension_sum_abs", "tokens"):
        mine, theirs = getattr(found, name).double(), getattr(truth, name).double()
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=0.0, equal_nan=True)
        torch.testing.assert_close(getattr(found, name), getattr(again, name), rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_residual_statistics_of_a_long_prompt(implementation: str) -> None:
    """More than 2³¹ elements, so that addresses need 64 bits; extra memory below 5% of the stream."""
    tokens = 540_000
    x = torch.ones(1, tokens, 4096, device="cuda", dtype=torch.bfloat16)
    x[0, -1, 17] = -100.0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = residual_statistics(x, implementation=implementation)
    assert torch.cuda.max_memory_allocated() - before < 0.05 * x.numel() * x.element_size()
    assert found.argmax[0, -2:].tolist() == [0, 17]
    assert found.norm[0, 0].item() == 64.0
    expected = torch.full((4096,), float(tokens), dtype=torch.float64)
    expected[17] += 99
    assert torch.equal(found.dimension_sum_abs[0].cpu(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_written_norms_in_chunks(dtype: torch.dtype) -> None:
    v = torch.randn(2, 2, 5000, 64, device="cuda").to(dtype)
    projection = torch.randn(8, 64, 512, device="cuda").to(dtype)
    truth = torch.einsum("bhtd,hdm->bhtm", v.double().repeat_interleave(4, 1), projection.double()).norm(dim=-1)
    found = written_norms(v, cholesky_factors(projection))
    assert found.dtype == torch.float32
    error = ((found.double() - truth) / truth).abs()
    assert float(error.max()) < {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float32: 2e-5}[dtype]
    assert float(error.mean()) < {torch.bfloat16: 1e-3, torch.float16: 2e-4, torch.float32: 2e-6}[dtype]


def test_value_drain_holds_little_memory() -> None:
    tokens, heads, kv_heads, d = 131072, 32, 8, 128
    v = torch.randn(1, kv_heads, tokens, d, device="cuda", dtype=torch.bfloat16)
    projection = torch.randn(heads, d, 4096, device="cuda", dtype=torch.bfloat16)
    call = AttentionCall(layer=0, q=v[:, :, :1].expand(-1, -1, tokens, -1).repeat(1, 4, 1, 1), k=v, v=v, scale=1.0)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    norms = value_drain_module.written_norms(call.v, cholesky_factors(projection))
    assert norms.shape == (1, heads, tokens)
    allowed = 4 * value_drain_module.CHUNK_BYTES + norms.numel() * 4
    assert torch.cuda.max_memory_allocated() - before < allowed
