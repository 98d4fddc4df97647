"""Turn one call of transformers' attention interface into an AttentionCall."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from attnscope_kernels.contract import AttentionCall

from ..core.errors import UnsupportedModelError

HARMLESS = frozenset({
    "cache", "cache_position", "deterministic", "head_mask", "hidden_states", "labels", "logits_to_keep",
    "mm_token_type_ids", "num_items_in_batch", "output_attentions", "output_hidden_states", "output_router_logits",
    "past_key_value", "past_key_values", "position_embeddings", "position_ids", "return_dict", "return_loss",
    "token_type_ids", "use_cache", "is_causal",
})  # fmt: skip
"""Keyword arguments that say nothing about which keys a query sees or how strongly."""

_REASONS = {
    "position_bias": "a learned bias on every query-key pair",
    "indices": "a sparse choice of keys",
    "block_indices": "a sparse choice of key blocks",
    "cu_seq_lens_q": "several sequences packed in one row",
    "cu_seqlens": "several sequences packed in one row",
    "head_mask": "a mask on heads",
}


def normalise(
    module: nn.Module,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    options: dict[str, Any],
) -> AttentionCall:
    """Return the AttentionCall of one interface call.

    Args:
        module: the attention module that calls.
        layer: its 0-based layer.
        query: `[B, H, Tq, D]` after RoPE and QK-norm.
        key: `[B, G, Tk, D]`, unrepeated.
        value: `[B, G, Tk, Dv]`.
        attention_mask: `[B, Tk]` or None.
        options: the call's keyword arguments.

    Raises:
        UnsupportedModelError: the call says something that an AttentionCall cannot.
    """
    options = dict(options)
    dropout, scaling = options.pop("dropout", 0.0), options.pop("scaling", None)
    window, softcap, sinks = (options.pop(name, None) for name in ("sliding_window", "softcap", "s_aux"))
    causal = options.pop("is_causal", None)
    _refuse_unknown(module, layer, options)
    if dropout:
        raise UnsupportedModelError(
            f"attention of layer {layer} ({type(module).__name__})",
            found=f"dropout {dropout}, the model is in training mode",
            expected="no dropout",
            fix="Call model.eval() first.",
        )
    if causal is None:
        causal = getattr(module, "is_causal", None)
    if causal is None:
        raise UnsupportedModelError(
            f"attention of layer {layer} ({type(module).__name__})",
            found="neither an is_causal argument nor an is_causal attribute",
            expected="the module to say whether later keys are hidden",
        )
    return AttentionCall(
        layer=layer,
        q=query,
        k=key,
        v=value,
        scale=float(query.shape[-1] ** -0.5 if scaling is None else scaling),
        key_valid=_key_valid(module, layer, key, attention_mask),
        causal=bool(causal),
        window=None if window is None else int(window),
        softcap=None if softcap is None else float(softcap),
        sink_logits=None if sinks is None else sinks.reshape(-1),
    )


def _refuse_unknown(module: nn.Module, layer: int, options: dict[str, Any]) -> None:
    unknown = {name: value for name, value in options.items() if value is not None and value is not False}
    unknown = {name: value for name, value in unknown.items() if name not in HARMLESS}
    if options.get("head_mask") is not None:
        unknown["head_mask"] = options["head_mask"]
    for name, value in unknown.items():
        shape = f" {tuple(value.shape)}" if isinstance(value, Tensor) else f"={value!r}"
        raise UnsupportedModelError(
            f"attention of layer {layer} ({type(module).__name__})",
            found=f"the argument {name}{shape}" + (f": {_REASONS[name]}" if name in _REASONS else ""),
            expected="queries, keys, values, scale, window, softcap, sink logits and padding, nothing else",
            fix="If it came from your own call of the model, leave it out; otherwise this model is not supported.",
        )


def _key_valid(module: nn.Module, layer: int, key: Tensor, mask: Tensor | None) -> Tensor | None:
    if mask is None:
        return None
    batch, keys = key.shape[0], key.shape[2]
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.shape[0] not in (1, batch) or mask.shape[1] < keys:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise UnsupportedModelError(
            f"attention of layer {layer} ({type(module).__name__})",
            found=f"an attention mask of shape {shape}",
            expected=f"a padding mask [B, Tk] = [{batch}, {keys}], or none",
            fix="Give the model a padding mask of two dimensions; masks of single query-key pairs are not supported.",
        )
    return mask[:, -keys:].bool().expand(batch, keys).to(key.device)
