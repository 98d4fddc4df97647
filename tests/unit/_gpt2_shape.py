"""A model of GPT-2 small's layers and heads, narrow and random, in a folder with a tokenizer of whole words."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from _tokenizers import for_pair_sets


def save_gpt2_shape(folder: Path, layers: int = 12, heads: int = 12) -> Path:
    """Write it; its weights are large enough for attention to matter."""
    tokenizer = for_pair_sets()
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=4 * heads, n_head=heads, n_layer=layers, n_positions=64,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(6)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
