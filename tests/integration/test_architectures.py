"""Every supported architecture, tiny and random: an identity tap equals the model's own eager attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import datasets
import pytest
import torch
import transformers
from torch import Tensor

from attnscope.core.batch import Batch
from attnscope.core.errors import UnsupportedModelError
from attnscope.engine.gates.duo_attention import DuoAttention
from attnscope.engine.gates.hardkuma import HardKuma
from attnscope.engine.gates.statistics import train_gates
from attnscope.models._check import verify
from attnscope.models.hf import HFScope
from attnscope_kernels import AttentionCall, attend

T = 11
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MHA = {**SMALL, "num_key_value_heads": 4}
TWO_KINDS = ["sliding_attention", "full_attention"]


def build(name: str, head: str = "ForCausalLM", config: str | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    chosen = getattr(transformers, config or f"{name}Config")(**options)
    model = getattr(transformers, f"{name}{head}")._from_config(chosen, attn_implementation="eager").eval()
    with torch.no_grad():  # tiny random weights make logits that do not depend on attention: enlarge them
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
            elif parameter.abs().max() == 0:
                parameter.normal_(std=0.1)
    return model


def small(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: build(name, **{**SMALL, **options})


def deepseek_v3() -> Any:
    mla = {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
    experts = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2}
    dense = {"first_k_dense_replace": 1, "moe_intermediate_size": 16}
    return build("DeepseekV3", **{**MHA, **mla, **experts, **dense})


def qwen3_next() -> Any:
    linear = {
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 2,
    }
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    kinds = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}
    sizes = {"head_dim": 8, "shared_expert_intermediate_size": 16}
    return build("Qwen3Next", **{**SMALL, **linear, **experts, **kinds, **sizes})


def gpt2() -> Any:
    return build("GPT2", head="LMHeadModel", vocab_size=64, n_embd=32, n_head=4, n_layer=2, n_positions=64)


def opt() -> Any:
    sizes = {"ffn_dim": 48, "word_embed_proj_dim": 32}
    kept = {name: value for name, value in SMALL.items() if name not in ("intermediate_size", "num_key_value_heads")}
    return build("OPT", **kept, **sizes)


def llava() -> Any:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
        "projection_dim": 16,
    }
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision),
        text_config=transformers.LlamaConfig(**SMALL),
        image_token_id=63,
        vision_feature_layer=-1,
    )
    return transformers.LlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()


def qwen2_vl() -> Any:
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
    tokens = {"image_token_id": 63, "video_token_id": 62, "vision_start_token_id": 61, "vision_end_token_id": 60}
    config = transformers.Qwen2VLConfig(text_config={**SMALL, "rope_parameters": rope}, vision_config=vision, **tokens)
    return transformers.Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="eager").eval()


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DECODERS: dict[str, Callable[[], Any]] = {
    "llama": small("Llama"),
    "qwen2": small("Qwen2"),
    "qwen3": small("Qwen3", head_dim=16),
    "mistral": small("Mistral", sliding_window=4),
    "gemma2": small("Gemma2", head_dim=16, sliding_window=4, layer_types=TWO_KINDS, attn_logit_softcapping=2.0),
    "gemma3": small("Gemma3", config="Gemma3TextConfig", head_dim=16, sliding_window=4, layer_types=TWO_KINDS),
    "phi3": small("Phi3"),
    "olmo2": small("Olmo2"),
    "granite": small("Granite", attention_multiplier=0.2),
    "cohere2": small("Cohere2", sliding_window=4, layer_types=TWO_KINDS),
    "stablelm": small("StableLm"),
    "gpt2": gpt2,
    "gpt_neox": lambda: build("GPTNeoX", **{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}),
    "opt": opt,
    "gpt_oss": small(
        "GptOss", head_dim=16, sliding_window=4, layer_types=TWO_KINDS, num_local_experts=4, num_experts_per_tok=2
    ),
    "deepseek_v3": deepseek_v3,
    "qwen3_moe": small("Qwen3Moe", head_dim=16, **EXPERTS),
    "qwen3_next": qwen3_next,
    "llava": llava,
    "qwen2_vl": qwen2_vl,
}
ENCODERS: dict[str, Callable[[], Any]] = {
    "bert": lambda: build("Bert", head="ForMaskedLM", **{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}),
    "roberta": lambda: build(
        "Roberta", head="ForMaskedLM", **{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    ),
}
ALL = {**DECODERS, **ENCODERS}


@cache
def scope_of(name: str) -> HFScope:
    """Build each model once: every test must leave it as it was."""
    return HFScope(ALL[name]())


def identity(call: AttentionCall) -> Tensor:
    z = attend(call, implementation="reference").output
    assert z is not None
    return z


def padded_batch(side: str = "left") -> Batch:
    ids = torch.randint(3, 60, (2, T), generator=torch.Generator().manual_seed(1))
    valid = torch.ones_like(ids, dtype=torch.bool)
    if side == "left":
        valid[0, :4] = False
    elif side == "right":
        valid[0, -4:] = False
    return Batch(ids, valid, (0, 1), 2)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def difference(found: Tensor, expected: Tensor, valid: Tensor) -> float:
    return float(((found - expected)[valid].abs().max() / expected[valid].abs().max()).item())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_identity_tap_equals_eager(name, side):
    scope, batch = scope_of(name), padded_batch(side)
    expected = scope.logits(batch)
    with scope.attach(identity):
        found = scope.logits(batch)
        scope.run(batch)
    assert difference(found, expected, batch.valid) < 1e-4
    assert torch.equal(scope.logits(batch), expected)


@pytest.mark.parametrize("name", ALL)
def test_tap_is_where_the_projection_reads(name):
    verify(scope_of(name), batch=padded_batch("none"))


@pytest.mark.parametrize("name", ALL)
def test_padding_side_changes_nothing(name):
    scope, alone = scope_of(name), padded_batch("none")
    ids, empty = alone.input_ids, torch.zeros(2, 3, dtype=torch.long)
    real = torch.ones_like(ids, dtype=torch.bool)
    left = Batch(torch.cat([empty, ids], 1), torch.cat([empty.bool(), real], 1), (0, 1), 2)
    right = Batch(torch.cat([ids, empty], 1), torch.cat([real, empty.bool()], 1), (0, 1), 2)
    with scope.attach(identity):
        plain, on_left, on_right = (scope.logits(batch) for batch in (alone, left, right))
    assert difference(on_left[:, 3:], plain, real) < 1e-4
    assert difference(on_right[:, :T], plain, real) < 1e-4


@pytest.mark.parametrize("name", DECODERS)
def test_chunked_prefill_and_decode_with_a_cache(name, cache_argument):
    scope, ids = scope_of(name), padded_batch("none").input_ids
    seen: list[tuple[int, int, int]] = []

    def tap(call: AttentionCall) -> Tensor:
        seen.append((call.layer, call.q.shape[2], call.offset))
        return identity(call)

    def chunks() -> Tensor:
        cache, pieces, argument = None, [], cache_argument(scope.model)
        for piece in (ids[:, :6], ids[:, 6:9], ids[:, 9:10], ids[:, 10:]):
            output = scope.model(input_ids=piece, use_cache=True, **{argument: cache})
            cache = output[argument]
            pieces.append(output.logits)
        return torch.cat(pieces, 1)

    expected = chunks()
    with scope.attach(tap):
        found = chunks()
    assert difference(found, expected, torch.ones_like(ids, dtype=torch.bool)) < 1e-4
    assert [layer for layer, _, _ in seen] == list(scope.info.attention_layers) * 4
    lengths = {queries for _, queries, _ in seen}
    assert lengths == {6, 3, 1}


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_oss", "gpt2", "qwen3_next"])
def test_generate_with_left_padding(name):
    scope, batch = scope_of(name), padded_batch("left")
    options = {
        "attention_mask": batch.valid.long(), "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False,
        "pad_token_id": 0,
    }  # fmt: skip
    expected = scope.model.generate(batch.input_ids, **options)
    with scope.attach(identity):
        found = scope.model.generate(batch.input_ids, **options)
    assert torch.equal(found, expected)


def test_what_the_models_say_about_themselves():
    info = scope_of("gemma3").info
    assert info.windows == (4, None)
    assert (info.n_heads, info.n_kv_heads, info.head_dim, info.causal) == (4, 2, 16, True)
    info = scope_of("qwen3_next").info
    assert info.attention_layers == (1, 3)
    assert info.n_layers == 4
    info = scope_of("deepseek_v3").info
    assert (info.n_kv_heads, info.head_dim) == (4, 16)
    assert scope_of("deepseek_v3").output_projection(0).shape == (4, 12, 32)
    assert not scope_of("bert").info.causal


@pytest.mark.parametrize("name", sorted({*ALL} - {"deepseek_v3"}))
def test_value_projection_gives_the_values_of_the_call(name):
    """Up to a bias, which the difference of two tokens takes away."""
    scope, batch = scope_of(name), padded_batch("right")
    values, reads = {}, {}

    def tap(call: AttentionCall) -> Tensor:
        values[call.layer] = call.v
        return identity(call)

    def note(layer: int, site: str, x: Tensor) -> None:
        reads[layer] = x

    norms = [block.attention_norm for block in scope.parts.blocks]
    site = "block_input" if None in norms else "attention_norm_output"
    with torch.no_grad(), scope.attach(tap, note, (site,)):
        scope.logits(batch)
    for layer, v in values.items():
        weights = scope.value_projection(layer)
        assert weights.shape == (v.shape[1], scope.info.d_model, v.shape[3])
        found = torch.einsum("btm,gmd->bgtd", reads[layer] - reads[layer][:, :1], weights)
        torch.testing.assert_close(found, v - v[:, :, :1], rtol=1e-4, atol=1e-4)


def test_latent_values_are_no_plain_matrix():
    with pytest.raises(UnsupportedModelError, match="value projection of layer 0"):
        scope_of("deepseek_v3").value_projection(0)


def test_vision_attention_keeps_its_own_implementation():
    scope = scope_of("llava")
    pixels, ids = torch.randn(1, 3, 8, 8), torch.tensor([[1, 63, 63, 63, 63, 5, 6]])
    layers: list[int] = []

    def tap(call: AttentionCall) -> Tensor:
        layers.append(call.layer)
        return identity(call)

    expected = scope.model(input_ids=ids, pixel_values=pixels).logits
    with scope.attach(tap):
        found = scope.model(input_ids=ids, pixel_values=pixels).logits
    assert layers == [0, 1]
    assert difference(found, expected, torch.ones_like(ids, dtype=torch.bool)) < 1e-4


FALCON = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
REFUSED = {
    "falcon": (lambda: build("Falcon", **FALCON), "never calls"),
    "bloom": (lambda: build("Bloom", vocab_size=64, hidden_size=32, n_layer=1, n_head=4), "never calls"),
    "mpt": (lambda: build("Mpt", vocab_size=64, d_model=32, n_layers=1, n_heads=4), "never calls"),
    "gptj": (lambda: build("GPTJ", vocab_size=64, n_embd=32, n_layer=1, n_head=4, rotary_dim=4), "never calls"),
    "llama4_text": (
        lambda: build("Llama4", config="Llama4TextConfig", **SMALL, head_dim=16, num_local_experts=2),
        "chunked attention",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_with_the_reason(name):
    make, reason = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=rf"{name}.*{reason}"):
        HFScope(make())


def test_encoder_decoders_are_refused():
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 4}
    with pytest.raises(UnsupportedModelError, match="cross-attention"):
        HFScope(build("T5", head="ForConditionalGeneration", **sizes))


@pytest.mark.parametrize("name", DECODERS)
def test_gates_are_trained_on_it(name):
    scope = scope_of(name)
    ids = torch.randint(3, 60, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    prompts = datasets.Dataset.from_dict({"input_ids": [ids], "query_positions": [[36, 38]]})
    duo = train_gates(scope, prompts, DuoAttention(steps=3, sink_tokens=1, recent_tokens=3))
    assert duo["distillation_loss"].values[0] == 0, "open gates leave the model as it is"
    assert duo["distillation_loss"].values[1] > 0
    assert (duo["duo_gate"].values < 1).any()
    kuma = train_gates(scope, prompts, HardKuma(steps=2, sink_tokens=1, recent_tokens=2, share=0.1))
    assert kuma["distillation_loss"].values[0] > 0
    batch = padded_batch("none")
    with scope.attach(identity):
        found = scope.logits(batch)
    assert difference(scope.logits(batch), found, batch.valid) < 1e-4
