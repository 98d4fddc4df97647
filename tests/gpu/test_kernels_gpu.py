"""The kernels' laws on a CUDA device: precision in bf16, no square memory, nothing unwritten."""

from __future__ import annotations

import pytest
import torch

from attnscope_kernels import AttentionCall, Result, TopKeys, Want, attend, available
from attnscope_kernels.errors import ImplementationUnavailableError
from attnscope_kernels.testing import compare, forbid_square, random_call, random_want

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

STREAMING = [name for name, reason in available().items() if reason is None and name != "reference"]
SLACK, FLOOR = 4.0, 5e-6
ALL_FEATURES = {"window": 100, "softcap": 5.0, "sink_logits": True, "padding": "left", "knockouts": 1, "blind": True}
CALLS = {
    "one": {"queries": 1},
    "odd": {"queries": 63},
    "plain": {"queries": 251, "heads": 8, "kv_heads": 1, "head_dim": 128},
    "long": {"queries": 1000, "heads": 8, "kv_heads": 2, "head_dim": 64},
    "left": {"queries": 300, "padding": "left", "head_dim": 64},
    "right": {"queries": 300, "padding": "right", "head_dim": 64},
    "chunk": {"queries": 77, "keys": 400, "q_offset": 100, "head_dim": 64},
    "decode": {"queries": 1, "keys": 999, "head_dim": 64},
    "bidirectional": {"queries": 251, "causal": False, "head_dim": 64},
    "all": {"queries": 333, "head_dim": 64, **ALL_FEATURES},
}


def run(call: AttentionCall, want: Want | None, implementation: str) -> Result:
    """Skip where an implementation says that it does not cover the call; the torch ones cover everything."""
    try:
        return attend(call, want, implementation)
    except ImplementationUnavailableError as error:
        if implementation in ("reference", "tiled"):
            raise
        pytest.skip(str(error))


def wide(call: AttentionCall) -> AttentionCall:
    sink = call.sink_logits
    return call.replace(
        q=call.q.double(), k=call.k.double(), v=call.v.double(), sink_logits=None if sink is None else sink.double()
    )


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", CALLS)
def test_error_no_worse_than_reference(implementation: str, dtype: torch.dtype, name: str) -> None:
    call = random_call(device="cuda", dtype=dtype, **CALLS[name])
    want = random_want(call)
    truth = attend(wide(call), want, "reference")
    allowed = compare(attend(call, want, "reference"), truth)
    found = compare(run(call, want, implementation), truth)
    assert found.keys() == allowed.keys()
    worse = {key: (found[key], allowed[key]) for key in found if found[key] > SLACK * allowed[key] + FLOOR}
    assert not worse


@pytest.mark.parametrize("implementation", STREAMING)
def test_same_numbers_twice(implementation: str) -> None:
    call = random_call(device="cuda", dtype=torch.bfloat16, **CALLS["all"])
    want = random_want(call)
    assert max(compare(run(call, want, implementation), run(call, want, implementation)).values()) == 0


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("features", [{}, ALL_FEATURES], ids=["plain", "all"])
def test_no_square_tensor(implementation: str, features: dict[str, object]) -> None:
    call = random_call(queries=1009, batch=1, head_dim=64, device="cuda", dtype=torch.bfloat16, **features)  # type: ignore[arg-type]
    want = random_want(call)
    with forbid_square(1009):
        run(call, want, implementation)
        run(call, Want(), implementation)


@pytest.mark.parametrize("implementation", STREAMING)
def test_output_alone(implementation: str) -> None:
    call = random_call(queries=500, heads=8, kv_heads=2, head_dim=128, device="cuda", dtype=torch.bfloat16)
    z = run(call, Want(), implementation).output
    torch.testing.assert_close(z, attend(call, Want(), "reference").output, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("implementation", STREAMING)
def test_peak_memory_grows_linearly(implementation: str) -> None:
    """From 16K to 64K tokens the extra memory grows at most 4 times: 16 times would be a T×T matrix."""
    peaks = []
    for length in (16384, 65536):
        call = random_call(
            batch=1, queries=length, heads=4, kv_heads=1, head_dim=64, device="cuda", dtype=torch.bfloat16
        )
        index = torch.arange(length, device="cuda")[None]
        want = Want(
            lse=True,
            entropy=True,
            received=True,
            mean_distance=True,
            mass_at={"previous": index - 1},
            mass_by_distance=(0, 1, 16, 256, 4096, length),
            pooled_map=(64, 64),
            top_keys={"last": TopKeys(index[:, -4:], 8)},
        )
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(call, want, implementation)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] <= 4.2 * peaks[0]
    assert peaks[1] < 65536 * 65536  # one byte an entry of a single head's matrix
