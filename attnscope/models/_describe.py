"""ModelInfo of a transformers model, read from its probe calls rather than from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from attnscope_kernels.contract import AttentionCall

from ..core.errors import UnsupportedModelError
from ..core.model_info import ModelInfo
from ._layout import Layout
from ._probe import input_device

_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")


def describe(
    model: Any,
    tokenizer: Any,
    layout: Layout,
    calls: Mapping[nn.Module, AttentionCall],
    *,
    model_id: str = "",
    revision: str | None = None,
    weights_seed: int | None = None,
) -> ModelInfo:
    """Return the model's shape and provenance; `weights_seed` is that of random weights, None for all others.

    Raises:
        UnsupportedModelError: layers differ in heads, KV heads or head size.
    """
    text = model.config.get_text_config()
    ordered = [calls[module] for module in layout.attention]
    shapes = {(call.q.shape[1], call.k.shape[1], call.q.shape[3]) for call in ordered}
    if len(shapes) != 1:
        raise UnsupportedModelError(
            f"model {type(model).__name__}",
            found=f"layers of different (heads, KV heads, head size): {sorted(shapes)}",
            expected="the same in every attention layer",
        )
    n_heads, n_kv_heads, head_dim = shapes.pop()
    bos = getattr(text, "bos_token_id", None)
    if bos is None:
        bos = getattr(tokenizer, "bos_token_id", None)
    context = [getattr(text, name) for name in _CONTEXT if isinstance(getattr(text, name, None), int)]
    embedding = model.get_input_embeddings()
    return ModelInfo(
        model_id=model_id or getattr(model.config, "_name_or_path", "") or type(model).__name__,
        revision=revision or getattr(model.config, "_commit_hash", None),
        architecture=type(model).__name__,
        backend="hf",
        n_layers=len(layout.blocks),
        attention_layers=tuple(layout.attention.values()),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        d_model=int(text.hidden_size),
        vocab_size=int(getattr(text, "vocab_size", embedding.weight.shape[0])),
        context_length=context[0] if context else None,
        causal=all(call.causal for call in ordered),
        windows=tuple(call.window for call in ordered),
        bos_token_id=bos if isinstance(bos, int) else None,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(input_device(model)),
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights="given" if weights_seed is None else "random",
        weights_seed=weights_seed,
    )
