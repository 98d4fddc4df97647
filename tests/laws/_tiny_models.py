"""Tiny random models of several architectures, whose weights are large enough for attention to matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

import attnscope
from attnscope.models.hf import HFScope

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _built(name: str, head: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    model = getattr(transformers, f"{name}{head}")._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
            elif parameter.abs().max() == 0:
                parameter.normal_(std=0.1)
    return model.requires_grad_(False)


MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: _built("Llama", "ForCausalLM", **SIZES),
    "gpt2": lambda: _built("GPT2", "LMHeadModel", vocab_size=96, n_embd=32, n_head=4, n_layer=3, n_positions=64),
    "gpt_neox": lambda: _built(
        "GPTNeoX", "ForCausalLM", **{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}
    ),
    "gemma2": lambda: _built("Gemma2", "ForCausalLM", **SIZES, head_dim=8, sliding_window=5, query_pre_attn_scalar=8),
    "qwen3": lambda: _built("Qwen3", "ForCausalLM", **SIZES, head_dim=8),
}


def tiny(name: str) -> HFScope:
    """Return one of `MODELS`, loaded."""
    return attnscope.load(MODELS[name]())  # type: ignore[return-value]
