"""Every Triton kernel in Triton's interpreter, on the CPU, against the dense definition.

The interpreter runs the kernels' own code, so that masks, bounds and sums are tested here; speed, precision of matrix
units and what the compiler makes of it are tested on a GPU (tests/gpu).
"""

from __future__ import annotations

import os

import pytest
import torch

from attnscope_kernels import AttentionCall, Screen, TopKeys, Want, attend, available, choose
from attnscope_kernels.errors import ContractError, ImplementationUnavailableError
from attnscope_kernels.testing import (
    FEATURES,
    compare,
    forbid_square,
    poisoned_memory,
    random_call,
    worse_than_reference,
)

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" or available()["triton"] is not None,
    reason="needs triton and TRITON_INTERPRET=1, which conftest sets where there is no GPU",
)

SHAPES = {
    "one": {"queries": 1},
    "tile": {"queries": 64},
    "group": {"queries": 66, "heads": 4, "kv_heads": 2, "batch": 1},
    "chunk": {"queries": 10, "keys": 97, "q_offset": 55, "batch": 1},
    "decode": {"queries": 1, "keys": 130, "batch": 1},
    "cross": {"queries": 70, "keys": 20, "causal": False, "batch": 1},
    "odd_dim": {"queries": 20, "head_dim": 40, "value_dim": 72, "batch": 1},
    "wide_dim": {"queries": 20, "head_dim": 160, "batch": 1},
    "bfloat16": {"queries": 70, "head_dim": 32, "dtype": torch.bfloat16, "batch": 1},
    "float16": {"queries": 70, "dtype": torch.float16, "padding": "left", "batch": 2},
    "long": {"queries": 200, "heads": 1, "kv_heads": 1, "batch": 1},
    "long_padding": {"queries": 200, "heads": 1, "kv_heads": 1, "padding": "right", "holes": True},
}


def small(**features: object) -> AttentionCall:
    return random_call(**{"batch": 2, "queries": 70, "heads": 2, "kv_heads": 1, **features})  # type: ignore[arg-type]


def everything(call: AttentionCall) -> Want:
    """Every reduction, maps kept small: the interpreter takes long for each program."""
    b, _, tq, _ = call.q.shape
    tk = call.k.shape[2]
    random = torch.Generator().manual_seed(0)
    return Want(
        lse=True,
        entropy=True,
        max_prob=True,
        mean_distance=True,
        received=True,
        received_max=True,
        value_norm=True,
        mass_at={"two": torch.randint(-1, tk, (b, tq, 2), generator=random)},
        mass_in={"three": torch.randint(-1, 3, (b, tk), generator=random)},
        top_keys={"some": TopKeys(torch.randint(-1, tq, (b, 3), generator=random), 3)},
        mass_by_distance=tuple(sorted({0, 1, 2, max(3, tk // 3), max(4, tk)})),
        pooled_map=(min(tq, 2), min(tk, 2)),
        pooled_max=(min(tq, 2), min(tk, 2)),
    )


@pytest.mark.parametrize("feature", FEATURES)
def test_features(feature: str) -> None:
    call = small(**FEATURES[feature])
    assert not worse_than_reference(attend(call, everything(call), "triton"), call, everything(call))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str) -> None:
    call = small(**SHAPES[shape])
    assert not worse_than_reference(attend(call, everything(call), "triton"), call, everything(call))


@pytest.mark.parametrize("feature", ["plain", "left", "packed", "window"])
def test_row_statistics_of_the_second_pass(feature: str) -> None:
    """Where a library gives z and lse, entropy and the largest weight come with the column sums."""
    from attnscope_kernels.impl._triton._fused import norm_of
    from attnscope_kernels.impl._triton._operands import operands_of
    from attnscope_kernels.impl._triton.weights import weights

    call = small(**FEATURES[feature], queries=140)
    want = Want(lse=True, entropy=True, max_prob=True, received=True)
    dense = attend(call, want, "reference")
    assert dense.lse is not None
    with poisoned_memory():
        found = weights(operands_of(call), norm_of(call, dense.lse), received=True, entropy=True, max_prob=True)
    for name in ("entropy", "max_prob", "received"):
        torch.testing.assert_close(getattr(found, name), getattr(dense, name), equal_nan=True, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("feature", ["plain", "all"])
def test_no_unwritten_output_and_the_same_twice(feature: str) -> None:
    call = small(**FEATURES[feature])
    clean = attend(call, everything(call), "triton")
    with poisoned_memory():
        poisoned = attend(call, everything(call), "triton")
    assert max(compare(poisoned, clean).values()) == 0


def test_any_number_of_programs_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch may be cut into launches of one head, or a head's keys over one program or many."""
    from attnscope_kernels.impl._triton import weights as module
    from attnscope_kernels.impl._triton._operands import operands_of
    from attnscope_kernels.impl._triton.distances import plan_of

    call = small(queries=330, batch=1)
    want = Want(output=False, received=True, received_max=True, mass_by_distance=(0, 3, 192, 400))
    expected = attend(call, want, "reference")
    bands = plan_of(operands_of(call), (0, 3, 192, 400)).bands
    assert bands is not None  # some tiles lie in one bin as a whole
    assert bands.tolist()[1:-1] == [128, 192, 256, 384]
    for running, scratch in ((1, 1), (3, 1 << 30), (64, 1), (1, 1 << 30)):
        monkeypatch.setattr(module, "processors", lambda _, running=running: running)
        monkeypatch.setattr(module, "SCRATCH", scratch)
        assert max(compare(attend(call, want, "triton"), expected).values()) < 1e-5


@pytest.mark.parametrize(("queries", "keys"), [(64, 128), (64, 16), (128, 32)])
def test_any_tile_gives_the_same(queries: int, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnscope_kernels.impl._triton import _tuning

    monkeypatch.setattr(_tuning, "IN_THE_INTERPRETER", _tuning.Tile(queries, keys, 4, 1))
    call = small(queries=140, batch=1, heads=1)
    assert not worse_than_reference(attend(call, everything(call), "triton"), call, everything(call))


def test_no_square_tensor() -> None:
    call = small(queries=131, batch=1, heads=1)
    with forbid_square(131):
        attend(call, everything(call), "triton")


@pytest.mark.parametrize("feature", ["plain", "all"])
def test_screen(feature: str) -> None:
    call = small(queries=260, batch=1, heads=1, **{**FEATURES[feature], "sink_logits": feature == "all"})
    screen = Screen(threshold=0.3, delta=0.4, stride=12)
    want = Want(received=True, entropy=True, max_prob=True, mean_distance=True, screen=screen)
    found, truth = attend(call, want, "triton"), attend(call, want, "reference")
    assert found.kernels[-1] == "screen"
    assert max(compare(found, truth).values()) < 1e-4


def test_output_alone_skips_stopped_heads() -> None:
    call = small(**FEATURES["edited"], window=9)
    result = attend(call, Want(), "triton")
    torch.testing.assert_close(result.output, attend(call, Want(), "reference").output, rtol=1e-5, atol=1e-5)


def test_transposed_and_misaligned_memory() -> None:
    """Models hand over views of [B, T, H, D]; rows that are no whole 16 bytes are copied."""
    call = small(queries=40, head_dim=18)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (call.q, call.k, call.v))
    want = Want(entropy=True, received=True)
    assert not worse_than_reference(attend(call.replace(q=q, k=k, v=v), want, "triton"), call, want)


def test_what_it_does_not_cover_is_named() -> None:
    from attnscope_kernels.impl.triton import uncovered

    for call in (small(dtype=torch.float64), small(head_dim=264), small(knockouts=31)):
        assert uncovered(call) is not None  # so that auto takes another
        with pytest.raises(ImplementationUnavailableError, match="tiled"):
            attend(call, Want(entropy=True), "triton")
    masked = small(window=9)
    with pytest.raises(ContractError, match="gradients"):
        attend(masked.replace(q=masked.q.requires_grad_()), Want(), "triton")


def test_gradients_flow_where_a_library_has_them() -> None:
    call = small(queries=30)
    call = call.replace(q=call.q.requires_grad_())
    result = attend(call, Want(received=True), "triton")
    assert result.output is not None
    assert result.received is not None
    (gradient,) = torch.autograd.grad(result.output.square().sum(), call.q)
    expected = attend(call, Want(), "reference").output
    assert expected is not None
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), call.q)[0])


def test_auto_leaves_the_interpreter_to_the_tests() -> None:
    assert choose(small()) == "tiled"
