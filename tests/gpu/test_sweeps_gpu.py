"""Sweeps on a GPU equal whole forwards on the CPU, with each kernel implementation, and read a long beginning once."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pytest
import torch

import attnscope
from attnscope.engine.attribution.patching import attribute
from attnscope.engine.sweep import shared
from attnscope.engine.sweep.alternatives import OtherRun, Zero
from attnscope.engine.sweep.run import sweep

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
METRICS = ["log_probability", "logit_difference", "kl"]


def loaded(device: str) -> Any:
    return attnscope.load(device=device, dtype="float32")


def pairs(tokens: int, n: int = 2) -> Any:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(n):
        clean = torch.randint(5, 4000, (tokens - 1,), generator=generator).tolist()
        corrupt = list(clean)
        corrupt[tokens // 2] = 77
        rows.append(
            {"input_ids": [0, *clean], "corrupt_ids": [0, *corrupt], "answer_ids": [11 + i, 50], "wrong_ids": [70]}
        )
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("implementation", ["triton", "tiled"])
@pytest.mark.parametrize("positions", ["all", "answer"])
@pytest.mark.parametrize("alternative", [Zero(), OtherRun()], ids=["zero", "patch"])
def test_stacked_on_the_gpu_equals_whole_forwards_on_the_cpu(
    implementation: str, positions: Any, alternative: Any
) -> None:
    options: dict[str, Any] = {"metrics": METRICS, "positions": positions, "alternative": alternative}
    gpu = sweep(loaded("cuda"), pairs(300), "head", implementation=implementation, **options)
    cpu = sweep(loaded("cpu"), pairs(300), "head", **options)
    for metric in METRICS:
        np.testing.assert_allclose(gpu.values[metric], cpu.values[metric], atol=2e-3)
        assert np.abs(cpu.effect(metric)).max() > 5e-4


def test_a_long_beginning_is_read_once_for_all_heads() -> None:
    """4,096 tokens, 64 heads: copies of the keys and values for each head would take 4 GiB."""
    scope = loaded("cuda")
    sweep(scope, pairs(512, 1), "mlp", metrics=METRICS, positions="answer")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = sweep(scope, pairs(4096, 1), "head", metrics=METRICS, positions="answer")
    assert torch.cuda.max_memory_allocated() - before < 2**30
    assert shared.LONG < 4096
    one = sweep(scope, pairs(4096, 1), "head", metrics=METRICS, positions="answer", method="plain")
    for metric in METRICS:
        np.testing.assert_allclose(found.values[metric], one.values[metric], atol=2e-3)


def test_attribution_on_the_gpu() -> None:
    gpu, cpu = (
        attribute(
            loaded(device),
            pairs(100),
            metric="logit_difference",
            alternative=OtherRun(),
        )
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(gpu.change, cpu.change, atol=2e-3)
    assert np.abs(cpu.change).max() > 0.02
