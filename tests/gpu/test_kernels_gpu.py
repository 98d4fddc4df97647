"""The kernels' laws on a CUDA device: precision in every dtype and head dim, no square memory, nothing unwritten."""

from __future__ import annotations

import contextlib
import gc
import math

import pytest
import torch

from attnscope_kernels import (
    AttentionCall,
    KernelMemoryError,
    Screen,
    TopKeys,
    Want,
    attend,
    attention_tile,
    available,
    choose,
)
from attnscope_kernels.errors import ContractError, ImplementationUnavailableError
from attnscope_kernels.testing import (
    FEATURES,
    compare,
    forbid_square,
    poisoned_memory,
    random_call,
    random_want,
    worse_than_reference,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

STREAMING = [name for name, reason in available().items() if reason is None and name != "reference"]
FLOOR = 5e-6
FEW = ("plain", "left", "packed", "edited", "all")
SHAPES = {
    "one": {"queries": 1},
    "odd": {"queries": 63},
    "prime": {"queries": 251, "heads": 8, "kv_heads": 1, "head_dim": 128},
    "long": {"queries": 1000, "heads": 8, "kv_heads": 2, "head_dim": 64},
    "chunk": {"queries": 77, "keys": 400, "q_offset": 100},
    "decode": {"queries": 1, "keys": 999},
    "cross": {"queries": 300, "keys": 90, "causal": False},
    "values": {"queries": 300, "head_dim": 192, "value_dim": 128},
}


def cuda(**options: object) -> AttentionCall:
    given = {"queries": 333, "head_dim": 64, "dtype": torch.bfloat16, "device": "cuda", **options}
    return random_call(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("feature", FEATURES)
def test_features(implementation: str, feature: str) -> None:
    call = cuda(**FEATURES[feature])
    want = random_want(call)
    assert not worse_than_reference(attend(call, want, implementation), call, want, FLOOR)


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("feature", FEW)
def test_dtypes(implementation: str, dtype: torch.dtype, feature: str) -> None:
    call = cuda(dtype=dtype, **FEATURES[feature])
    want = random_want(call)
    assert not worse_than_reference(attend(call, want, implementation), call, want, FLOOR)


@pytest.mark.parametrize("dim", [32, 80, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("feature", ["plain", "all"])
def test_head_dims(dim: int, dtype: torch.dtype, feature: str) -> None:
    call = cuda(head_dim=dim, dtype=dtype, **FEATURES[feature])
    want = random_want(call)
    assert not worse_than_reference(attend(call, want, "triton"), call, want, FLOOR)


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(implementation: str, shape: str) -> None:
    call = cuda(**SHAPES[shape])
    want = random_want(call)
    assert not worse_than_reference(attend(call, want, implementation), call, want, FLOOR)


@pytest.mark.parametrize("feature", ["plain", "all"])
def test_no_unwritten_output_and_the_same_twice(feature: str) -> None:
    call = cuda(**FEATURES[feature])
    want = random_want(call)
    with poisoned_memory():  # which makes torch deterministic, and so may change the library of the forward
        first, second = (attend(call, want, "triton") for _ in range(2))
    assert max(compare(first, second).values()) == 0
    assert not worse_than_reference(first, call, want, FLOOR)
    first, second = (attend(call, want, "triton") for _ in range(2))
    assert max(compare(first, second).values()) == 0


@pytest.mark.parametrize("implementation", STREAMING)
@pytest.mark.parametrize("feature", ["plain", "all"])
def test_no_square_tensor(implementation: str, feature: str) -> None:
    call = cuda(queries=1009, batch=1, **FEATURES[feature])
    want = random_want(call)
    with forbid_square(1009):
        attend(call, want, implementation)
        attend(call, Want(), implementation)


def test_statistics_ride_on_a_librarys_forward() -> None:
    """z and lse come from cuDNN or FlashAttention, entropy and maxima with the column sums."""
    call = cuda(queries=2000, heads=8, kv_heads=2, head_dim=128)
    want = Want(lse=True, entropy=True, max_prob=True, received=True)
    result = attend(call, want, "triton")
    assert result.kernels[0] in ("cudnn", "flash")
    assert result.kernels[1:] == ("weights",)
    assert not worse_than_reference(result, call, want, FLOOR)


def test_auto_is_triton_where_it_covers() -> None:
    assert choose(cuda()) == "triton"
    assert attend(cuda(), Want(entropy=True)).implementation == "triton"
    assert choose(cuda(dtype=torch.float64)) == "tiled"
    assert choose(cuda(head_dim=320)) == "tiled"
    assert choose(cuda(knockouts=31)) == "tiled"
    for uncovered in (cuda(dtype=torch.float64), cuda(head_dim=320), cuda(knockouts=31)):
        with pytest.raises(ImplementationUnavailableError, match="tiled"):
            attend(uncovered, Want(entropy=True), "triton")


def test_gradients_flow_or_are_refused() -> None:
    call = cuda(queries=100)
    call = call.replace(q=call.q.requires_grad_())
    output = attend(call, Want(entropy=True)).output
    assert output is not None
    (gradient,) = torch.autograd.grad(output.float().square().sum(), call.q)
    assert gradient.isfinite().all()
    with pytest.raises(ContractError, match="gradients"):
        attend(call.replace(window=9), Want(), "triton")


@pytest.mark.parametrize("feature", ["plain", "all"])
def test_a_tile_is_the_rectangle_of_the_matrix(feature: str) -> None:
    call = cuda(queries=700, heads=6, kv_heads=2, **FEATURES[feature])
    tile = attention_tile(call, [1, 4], slice(100, 357), slice(33, 290), "triton")
    truth = attention_tile(call, [1, 4], slice(100, 357), slice(33, 290), "reference")
    torch.testing.assert_close(tile, truth, equal_nan=True, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("feature", FEW)
def test_a_screen_is_exact_where_it_says_so(feature: str) -> None:
    call = cuda(queries=1500, **FEATURES[feature])
    rows = Want(entropy=True, max_prob=True, mean_distance=True, mass_by_distance=(0, 1, 9, 64))
    want = rows | Want(received=True, screen=Screen(threshold=0.2, delta=0.2))
    result = attend(call, want, "triton")
    assert max(compare(result, attend(call, want, "reference")).values()) < 2e-2
    exact = attend(call, Want(received=True), "triton").received
    assert result.received is not None
    assert exact is not None
    assert result.received_exact is not None
    kept = result.received_exact[:, None].expand_as(exact)
    torch.testing.assert_close(result.received[kept], exact[kept], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_screen_finds_every_key_above_one_percent(seed: int) -> None:
    """Sinks of every strength around the threshold, some seen by few queries, at 32K tokens."""
    tokens, heads = 32768, 8
    call = cuda(seed=seed, batch=1, queries=tokens, heads=heads, kv_heads=2)
    bias = torch.zeros(1, heads, tokens, device="cuda")
    random = torch.Generator().manual_seed(seed)
    places = torch.randint(0, tokens, (200,), generator=random).cuda()
    bias[..., places] = torch.linspace(0, 9, 200, device="cuda")
    call = call.replace(key_bias=bias)
    exact = attend(call, Want(output=False, received=True), "triton").received
    found = attend(call, Want(output=False, received=True, screen=Screen(seed=seed)), "triton")
    assert exact is not None
    assert found.received_exact is not None
    assert found.received_bound is not None
    share = exact / torch.arange(tokens, 0, -1, device="cuda")
    large = (share >= 0.01).any(1)
    assert int((large & (torch.arange(tokens, device="cuda") < tokens - 3000)).sum()) > 20
    assert not bool((large & ~found.received_exact).any())
    assert float(found.received_exact.float().mean()) < 0.25
    assert bool((exact <= found.received_bound * 1.001 + 1e-3).all())


def test_out_of_memory_says_what_would_fit() -> None:
    call = cuda(batch=1, queries=600_000, heads=8, kv_heads=2, head_dim=128, window=50_000)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (64 << 20)) / total)
    held = []  # pieces that earlier work left free inside segments in use, which could hold the output
    try:
        with contextlib.suppress(torch.OutOfMemoryError):
            while True:
                held.append(torch.empty(16 << 20, dtype=torch.uint8, device="cuda"))
        del held[-8:]
        with pytest.raises(KernelMemoryError, match=r"600,000 tokens, the output.*GiB.*tokens would fit") as caught:
            attend(call, Want(entropy=True), "triton")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    fits = int(str(caught.value).split("About ")[1].split(" ")[0].replace(",", ""))
    assert 0 < fits < 600_000


@pytest.mark.parametrize("implementation", STREAMING)
def test_peak_memory_grows_linearly(implementation: str) -> None:
    """From 16K to 64K tokens the extra memory grows about 4 times: 16 times would be a T×T matrix."""
    peaks = []
    for length in (16384, 65536):
        call = cuda(batch=1, queries=length, heads=4, kv_heads=1)
        index = torch.arange(length, device="cuda")[None]
        want = Want(
            lse=True,
            entropy=True,
            received=True,
            mean_distance=True,
            mass_at={"previous": index - 1},
            mass_by_distance=(0, 1, 16, 256, 4096, length),
            pooled_map=(64, 64),
            pooled_max=(64, 64),
            top_keys={"last": TopKeys(index[:, -4:], 8)},
        )
        torch.cuda.synchronize()
        gc.collect()  # what earlier tests left would be freed in between
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        attend(call, want, implementation)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] <= 6 * peaks[0]
    assert peaks[1] < 65536 * 65536  # one byte an entry of a single head's matrix


def test_long_rows_are_those_of_tiled() -> None:
    """Past 49,152 tokens the weight pass has another shape and many bands in registers."""
    call = cuda(batch=1, queries=50_001, heads=2, kv_heads=1, head_dim=128)
    edges = (0, 1, 7, 64, 300, 1000, 4096, 20_000, 50_001)
    want = Want(lse=True, entropy=True, max_prob=True, received=True, received_max=True, mass_by_distance=edges)
    found, expected = attend(call, want, "triton"), attend(call, want, "tiled")
    assert found.kernels[1:] == ("weights", "bands")
    assert max(compare(found, expected).values()) < 1e-2  # outputs are bfloat16
    for name in ("entropy", "max_prob", "received", "received_max", "mass_by_distance"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)


def test_far_addresses() -> None:
    """More than 2³¹ elements: index arithmetic is in 64 bits."""
    tokens, heads = 70_000, 256
    q = torch.randn(1, heads, tokens, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, 1, tokens, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    assert q.numel() > 2**31
    call = AttentionCall(layer=0, q=q, k=k, v=v, scale=128**-0.5, window=600)
    last = attend(call.select([heads - 1], slice(tokens - 50, tokens)), Want(entropy=True, lse=True), "triton")
    whole = attend(call, Want(entropy=True, lse=True, received=True), "triton")
    for name in ("output", "entropy", "lse"):
        torch.testing.assert_close(getattr(whole, name)[:, -1:, -50:], getattr(last, name))
    assert whole.received is not None
    assert math.isclose(float(whole.received[0, -1].sum()), tokens, rel_tol=1e-3)
