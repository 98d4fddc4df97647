"""Laws over every backend in the registry: the tap sits where it should, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.core.batch import Batch
from attnscope.core.errors import TapError, UnsupportedModelError
from attnscope.models import backends
from attnscope.models._base import Scope
from attnscope.models._check import identity, verify
from attnscope.models._loading import require_causal
from attnscope.models.toy import Toy
from attnscope_kernels import AttentionCall, Knockout, attend

NEEDS = {"nnsight": "nnsight", "transformer_lens": "transformer_lens"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A tiny saved Llama with a tokenizer, which every real backend can load."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    place = tmp_path_factory.mktemp("llama")
    model.save_pretrained(place)
    words = Tokenizer(WordLevel({f"w{index}": index for index in range(64)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="w1", eos_token="w2").save_pretrained(
        place
    )
    return str(place)


@pytest.fixture(scope="module", params=backends.names())
def scope(request, folder) -> Scope:
    needed = NEEDS.get(request.param)
    if needed and find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    loader: Callable[..., Any] = backends.get(request.param)
    return loader(None if request.param == "toy" else folder, device="cpu")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def batch(padding: str = "none", t: int = 11) -> Batch:
    ids = torch.randint(3, 60, (2, t), generator=torch.Generator().manual_seed(1))
    valid = torch.ones_like(ids, dtype=torch.bool)
    if padding != "none":
        valid[0, : 4 if padding == "left" else None] = padding != "left"
    if padding == "right":
        valid[0, -4:] = False
    return Batch(ids, valid, (0, 1), 2)


def worst(found: Tensor, expected: Tensor, valid: Tensor) -> float:
    return float((found - expected)[valid].abs().max() / expected[valid].abs().max())


def test_scope_protocol(scope):
    assert isinstance(scope, Scope)
    assert scope.info.attention_layers == tuple(range(scope.info.n_layers))
    require_causal(scope, "the sink rate")


@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_identity_tap_leaves_logits_unchanged(scope, padding):
    prompts = batch(padding)
    plain = scope.logits(prompts)
    with scope.attach(identity):
        tapped = scope.logits(prompts)
    assert worst(tapped, plain, prompts.valid) < 1e-5


def test_tap_ablation_equals_zeroed_projection_columns(scope):
    verify(scope, tolerance=1e-5)


def test_knockout_changes_logits(scope):
    prompts, info = batch(), scope.info
    heads = torch.ones(info.n_heads, dtype=torch.bool)
    last, first = (torch.zeros(2, 11, dtype=torch.bool) for _ in range(2))
    last[:, -1] = True
    first[:, 2] = True

    def tap(call: AttentionCall) -> Tensor:
        device = call.q.device
        pair = Knockout(heads.to(device), last.to(device), first.to(device))
        return identity(call.replace(knockouts=(pair,)))

    plain = scope.logits(prompts)
    with scope.attach(tap):
        knocked = scope.logits(prompts)
    assert torch.allclose(knocked[:, :-1], plain[:, :-1], atol=1e-4)
    assert (knocked[:, -1] - plain[:, -1]).abs().max() > 1e-3


def test_tap_sees_every_layer_once_with_the_declared_shapes(scope):
    calls: list[AttentionCall] = []

    def tap(call: AttentionCall) -> Tensor:
        calls.append(call)
        return identity(call)

    for forward in (scope.run, scope.logits):
        calls.clear()
        with scope.attach(tap):
            forward(batch("left"))
        info = scope.info
        assert [call.layer for call in calls] == list(info.attention_layers)
        for call in calls:
            assert call.q.shape == (2, info.n_heads, 11, info.head_dim)
            assert call.k.shape == (2, info.n_kv_heads, 11, info.head_dim)
            assert call.causal
            assert torch.equal(call.valid_queries, batch("left").valid)


def test_residual_sites_are_consecutive_and_add_up(scope):
    seen: dict[tuple[int, str], Tensor] = {}
    with scope.attach(residual=lambda layer, site, x: seen.__setitem__((layer, site), x)):
        scope.run(batch())
    layers = range(scope.info.n_layers)
    assert set(seen) == {(layer, site) for layer in layers for site in ("block_input", "block_output")}
    for layer in layers[1:]:
        assert torch.equal(seen[layer, "block_input"], seen[layer - 1, "block_output"])
    assert all(x.shape == (2, 11, scope.info.d_model) for x in seen.values())


def test_detach_restores_also_after_an_exception(scope):
    prompts = batch()
    plain = scope.logits(prompts)

    def broken(call: AttentionCall) -> Tensor:
        raise KeyError(call.layer)

    with pytest.raises(KeyError), scope.attach(broken, lambda *_: None):
        scope.run(prompts)
    assert torch.equal(scope.logits(prompts), plain)
    with scope.attach(identity):
        scope.run(prompts)
    assert torch.equal(scope.logits(prompts), plain)


@pytest.mark.parametrize("tapped", [False, True])
def test_padding_side_changes_nothing(scope, tapped):
    alone, empty = batch(), torch.zeros(2, 3, dtype=torch.long)
    left = Batch(torch.cat([empty, alone.input_ids], 1), torch.cat([empty.bool(), alone.valid], 1), (0, 1), 2)
    right = Batch(torch.cat([alone.input_ids, empty], 1), torch.cat([alone.valid, empty.bool()], 1), (0, 1), 2)
    with scope.attach(identity if tapped else None):
        plain, on_left, on_right = (scope.logits(prompts) for prompts in (alone, left, right))
    assert worst(on_left[:, 3:], plain, alone.valid) < 1e-5
    assert worst(on_right[:, :11], plain, alone.valid) < 1e-5


def test_attaching_twice_is_an_error_and_leaves_the_first_in_place(scope):
    prompts = batch()
    with scope.attach(identity):
        with pytest.raises(TapError, match="attached already"), scope.attach(identity):
            pass
        scope.run(prompts)
    scope.run(prompts)


def test_two_models_nest(scope):
    other, seen = Toy(seed=5), []
    with scope.attach(identity), other.attach(lambda call: seen.append(call.layer) or identity(call)):
        scope.run(batch())
        other.run(batch())
    assert seen == [0, 1]


def test_tap_must_return_z(scope):
    with pytest.raises(TapError, match=r"layer 0.*found"), scope.attach(lambda call: call.q[:, :1]):
        scope.run(batch())
    with pytest.raises(TapError, match="NoneType"), scope.attach(lambda call: None):
        scope.run(batch())


def test_output_projection_shape_and_unknown_layer(scope):
    info = scope.info
    weights = scope.output_projection(1)
    assert weights.shape == (info.n_heads, info.head_dim, info.d_model)
    with pytest.raises(UnsupportedModelError, match="layer 99"):
        scope.output_projection(99)


def test_value_projection_and_embeddings_have_their_shapes(scope):
    info = scope.info
    assert scope.value_projection(1).shape == (info.n_kv_heads, info.d_model, info.head_dim)
    assert [tuple(part.shape) for part in scope.token_embeddings()] == [(info.vocab_size, info.d_model)] * 2
    with pytest.raises(UnsupportedModelError, match="layer 99"):
        scope.value_projection(99)


def test_gradients_reach_the_tap(scope):
    """Attribution needs d(logit)/dz; the weights themselves need no gradient."""
    kept: list[Tensor] = []

    def tap(call: AttentionCall) -> Tensor:
        z = identity(call).requires_grad_() if call.layer == 0 else identity(call)
        kept.append(z)
        return z

    with torch.enable_grad(), scope.attach(tap):
        logits = scope.logits(batch())
        (gradient,) = torch.autograd.grad(logits[:, -1].sum(), kept[0])
    assert gradient.abs().max() > 0


def test_attend_is_what_identity_runs():
    call = AttentionCall(
        layer=0, q=torch.randn(1, 2, 5, 4), k=torch.randn(1, 1, 5, 4), v=torch.randn(1, 1, 5, 4), scale=0.5
    )
    assert torch.equal(identity(call), attend(call).output)
