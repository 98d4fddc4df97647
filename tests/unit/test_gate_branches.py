"""The attention that gates mix against the reference and the streaming edit, its gradients, and its memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attnscope.core.errors import UnsupportedModelError
from attnscope.edits.stream_window import StreamWindow
from attnscope.engine.gates.branches import full, streaming
from attnscope_kernels import AttentionCall, attend
from attnscope_kernels.testing import forbid_square

FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 40},
    "narrow": {"window": 9},
    "softcap": {"softcap": 2.0},
    "sink": {"sink_logits": torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)},
    "all": {"window": 50, "softcap": 2.0, "sink_logits": torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)},
}


def make_call(tokens: int, requires_grad: bool = False, **features: Any) -> AttentionCall:
    generator = torch.Generator().manual_seed(tokens)
    q, k, v = (
        torch.randn(2, heads, tokens, 8, generator=generator, dtype=torch.float64).requires_grad_(requires_grad)
        for heads in (4, 2, 2)
    )
    return AttentionCall(layer=0, q=q, k=k, v=v, scale=0.4, **features)


def reference(call: AttentionCall) -> torch.Tensor:
    output = attend(call, implementation="reference").output
    assert output is not None
    return output


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("tokens", [1, 63, 111, 300])
def test_full_attention_is_the_reference_with_its_gradients(name: str, tokens: int) -> None:
    ours, theirs = (make_call(tokens, requires_grad=True, **FEATURES[name]) for _ in range(2))
    found, expected = full(ours), reference(theirs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for part in ("q", "k", "v"):
        torch.testing.assert_close(getattr(ours, part).grad, getattr(theirs, part).grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize(("tokens", "sinks", "recent"), [(111, 4, 16), (300, 3, 70), (65, 0, 1), (129, 20, 64)])
def test_streaming_attention_is_the_edit(name: str, tokens: int, sinks: int, recent: int) -> None:
    call = make_call(tokens, **FEATURES[name])
    edit = StreamWindow(sinks=sinks, recent=recent)
    expected = edit.output(call, reference(call))
    torch.testing.assert_close(streaming(call, sinks, recent), expected, rtol=0, atol=1e-11)
    if name == "plain":
        assert (streaming(call, sinks, recent) - full(call)).abs().max() > 0.1


def test_a_window_of_the_whole_prompt_is_full_attention() -> None:
    call = make_call(80)
    assert torch.equal(streaming(call, 2, 80), full(call))


def test_gradients_of_streaming_attention_are_those_of_a_dense_mask() -> None:
    ours, theirs = (make_call(150, requires_grad=True) for _ in range(2))
    streaming(ours, 3, 20).pow(2).sum().backward()
    i = torch.arange(150)
    distance = i[:, None] - i
    seen = (distance >= 0) & ((distance < 20) | (i < 3))
    logits = theirs.scale * theirs.q @ theirs.k.repeat_interleave(2, 1).mT
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
    (weights @ theirs.v.repeat_interleave(2, 1)).pow(2).sum().backward()
    for part in ("q", "k", "v"):
        torch.testing.assert_close(getattr(ours, part).grad, getattr(theirs, part).grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["plain", "all"])
def test_no_tensor_has_two_axes_of_the_prompt(name: str) -> None:
    call = make_call(509, requires_grad=True, **FEATURES[name])
    with forbid_square(509):
        (full(call) + streaming(call, 4, 32)).sum().backward()


def test_half_precision_stays_half_precision() -> None:
    call = make_call(90)
    half = call.replace(q=call.q.bfloat16(), k=call.k.bfloat16(), v=call.v.bfloat16())
    found = streaming(half, 4, 16)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), streaming(call, 4, 16), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"causal": False}, "no causality"),
        ({"key_valid": torch.arange(20).expand(2, -1) > 2}, "padding"),
        ({"key_bias": torch.zeros(1, 4, 20)}, "key_bias"),
    ],
)
def test_other_attention_is_refused(changes: dict[str, Any], says: str) -> None:
    call = make_call(20).replace(**changes)
    for branch in (full, lambda call: streaming(call, 1, 4)):
        with pytest.raises(UnsupportedModelError, match=says):
            branch(call)
