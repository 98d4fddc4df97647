"""Five architectures, tiny and random, with logits that depend on attention."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers

from attnscope.models.hf import HFScope

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", GROUPED),
    "GPT2": ("GPT2LMHeadModel", {"vocab_size": 64, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}),
    "GPTNeoX": ("GPTNeoXForCausalLM", SMALL),
    "Gemma2": ("Gemma2ForCausalLM", {**GROUPED, "head_dim": 8}),
    "Qwen3": ("Qwen3ForCausalLM", {**GROUPED, "head_dim": 8}),
}


@cache
def small_scope(name: str) -> HFScope:
    """One of ARCHITECTURES, its weights large enough to matter and its biases not 0."""
    kind, options = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, kind)._from_config(getattr(transformers, f"{name}Config")(**options)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(6)
                elif parameter.abs().max() == 0:
                    parameter.normal_(std=0.1)
    return HFScope(model.requires_grad_(False))
