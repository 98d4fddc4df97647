"""Which pairs RoPE turns, of every architecture: found by turning the model's own keys, refused where nothing turns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from test_architectures import DECODERS, MHA, SMALL, build

from attnscope.core.errors import UnsupportedModelError
from attnscope.models._rotary import Rotary, adjacent_order, find_rotary
from attnscope.models.hf import HFScope

PARTIAL = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 4}
NEOX = {k: v for k, v in {**SMALL, "hidden_size": 64}.items() if k != "num_key_value_heads"}
FOUND: dict[str, tuple[Any, str, int, int, list[int]]] = {
    "llama": (DECODERS["llama"], "rotate_half", 8, 8, [0, 1]),
    "gemma3": (DECODERS["gemma3"], "rotate_half", 16, 16, [0, 1]),
    "cohere2": (DECODERS["cohere2"], "interleaved", 8, 8, [0]),
    "cohere": (lambda: build("Cohere", **SMALL), "interleaved", 8, 8, [0, 1]),
    "glm": (lambda: build("Glm", **{**SMALL, **PARTIAL}), "interleaved", 8, 16, [0, 1]),
    "gpt_neox": (lambda: build("GPTNeoX", **NEOX), "rotate_half", 4, 16, [0, 1]),
    "stablelm": (lambda: build("StableLm", **{**MHA, "hidden_size": 64}), "rotate_half", 4, 16, [0, 1]),
    "phi": (lambda: build("Phi", **{**MHA, "hidden_size": 64}), "rotate_half", 8, 16, [0, 1]),
    "gpt_oss": (DECODERS["gpt_oss"], "rotate_half", 16, 16, [0, 1]),
    "qwen3_next": (DECODERS["qwen3_next"], "rotate_half", 2, 8, [1, 3]),
    "smollm3": (
        lambda: build("SmolLM3", **{**SMALL, "num_hidden_layers": 4}),
        "rotate_half", 8, 8, [0, 1, 2],
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Any:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(level)


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pairs_dimensions_and_layers_are_found(name: str, dtype: torch.dtype) -> None:
    make, pairs, dims, head_dim, layers = FOUND[name]
    found = find_rotary(HFScope(make().to(dtype)))
    assert (found.pairs, found.dims, found.head_dim, list(found.frequencies)) == (pairs, dims, head_dim, layers)
    assert sorted(found.order) == list(range(head_dim))
    for angles in found.frequencies.values():
        assert len(angles) == head_dim // 2
        assert all(angle > 0 for angle in angles[: dims // 2])
        assert angles[dims // 2 :] == (0.0,) * ((head_dim - dims) // 2)


def test_each_layer_has_its_own_frequencies() -> None:
    found = find_rotary(HFScope(DECODERS["gemma3"]()))
    local, whole = (found.frequencies[layer] for layer in (0, 1))
    assert local[1] == pytest.approx(10_000 ** (-1 / 8))
    assert whole[1] == pytest.approx(1_000_000 ** (-1 / 8))


def test_scaled_frequencies_keep_their_pairs() -> None:
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }  # fmt: skip
    plain = find_rotary(HFScope(build("Llama", **SMALL)))
    scaled = find_rotary(HFScope(build("Llama", **SMALL, rope_parameters=rope)))
    assert scaled.order == plain.order
    assert scaled.frequencies[0][-1] == pytest.approx(plain.frequencies[0][-1] / 8)


def test_it_does_not_believe_a_buffer_that_the_keys_contradict() -> None:
    model = build("Llama", **SMALL)
    model.model.rotary_emb.forward = _half_speed(model.model.rotary_emb)
    with pytest.raises(UnsupportedModelError, match="layer 0 that do not turn by the model's frequencies"):
        find_rotary(HFScope(model))


def _half_speed(rotary: Any) -> Any:
    original = rotary.forward
    return lambda x, position_ids, *rest: original(x, position_ids // 2, *rest)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt2", "no rotary frequencies: learned or added positions"),
        ("opt", "no rotary frequencies: learned or added positions"),
        ("deepseek_v3", "latent attention"),
    ],
)
def test_models_without_such_pairs_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        find_rotary(HFScope(DECODERS[name]()))


def test_a_model_without_positions_is_refused() -> None:
    model = build("SmolLM3", **{**SMALL, "no_rope_layers": [0, 0]})
    with pytest.raises(UnsupportedModelError, match="do not depend on their position"):
        find_rotary(HFScope(model))


def test_the_toy_backend_is_refused() -> None:
    import attnscope

    with pytest.raises(UnsupportedModelError, match="positions"):
        find_rotary(attnscope.load(backend="toy"))


def test_orders() -> None:
    assert Rotary("interleaved", 4, 8, {}).order == (0, 2, 4, 5, 1, 3, 6, 7)
    assert Rotary("interleaved", 8, 8, {}).order == adjacent_order(8)
    assert math.prod(adjacent_order(4)) == 0
