"""Contextual agreement on a CUDA device: the search's numbers, twice the same, in little memory."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope_kernels import AttentionCall
from attnscope_kernels.frequency import choose, contextual_agreement
from attnscope_kernels.testing import random_call

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]
SHAPES = {
    "half": {"head_dim": 128, "heads": 8, "kv_heads": 2},
    "fp16": {"head_dim": 64, "heads": 4, "kv_heads": 4, "dtype": torch.float16},
    "fp32": {"head_dim": 64, "heads": 4, "kv_heads": 1, "dtype": torch.float32},
    "padded_tile": {"head_dim": 80, "heads": 6, "kv_heads": 2},
    "narrow_tile": {"head_dim": 96, "heads": 4, "kv_heads": 2},
    "widest": {"head_dim": 256, "heads": 2, "kv_heads": 1},
    "masked": {"head_dim": 64, "batch": 2, "padding": "left", "window": 3000, "knockouts": 1},
    "chunk": {"head_dim": 64, "queries": 700, "keys": 4099, "q_offset": 2000},
}


def exact_call(**shape: Any) -> AttentionCall:
    """A call whose logits are exact in float32, so that every order of addition ranks keys alike."""
    call = random_call(**{"queries": 4099, "batch": 1, "dtype": torch.bfloat16, "device": "cuda", **shape})

    def on_grid(x: Tensor) -> Tensor:
        return (x * 16).round().clamp(-64, 64) / 16

    return call.replace(q=on_grid(call.q), k=on_grid(call.k))


def spread(call: AttentionCall, count: int = 6) -> Tensor:
    queries = torch.arange(1, count + 1, device="cuda") * call.q.shape[2] // count - 1
    return queries.expand(call.q.shape[0], -1).contiguous()


@pytest.mark.parametrize("pairing", ["half", "adjacent"])
@pytest.mark.parametrize("name", SHAPES)
def test_triton_is_torch_to_the_bit_twice(name: str, pairing: str) -> None:
    call = exact_call(**SHAPES[name])
    queries = spread(call)
    assert choose(call) == "triton"
    for k in (1, 256, 5000):
        found = [contextual_agreement(call, queries, k, pairing=pairing, implementation="triton") for _ in range(2)]
        assert torch.equal(found[0].nan_to_num(-1), found[1].nan_to_num(-1))
        expected = contextual_agreement(call, queries, k, pairing=pairing, implementation="torch")
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_memory_of_a_long_prompt(implementation: str) -> None:
    """Every partial logit at once would take 16 GiB; the budgets, and what they leave to the allocator, far less."""
    q = torch.randn(1, 131072, 32, 128, dtype=torch.bfloat16, device="cuda").transpose(1, 2)
    k = torch.randn(1, 131072, 8, 128, dtype=torch.bfloat16, device="cuda").transpose(1, 2)
    call = AttentionCall(layer=0, q=q, k=k, v=k, scale=128**-0.5)
    queries = spread(call, 16)
    contextual_agreement(call, queries, 256, implementation=implementation)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    contextual_agreement(call, queries, 256, implementation=implementation)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 1 << 30
