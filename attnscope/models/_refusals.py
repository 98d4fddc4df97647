"""Models that are refused by name, each with its reason."""

from __future__ import annotations

from typing import Any

from ..core.errors import UnsupportedModelError

_OWN = "its attention code never calls transformers' attention interface"
_CHUNKED = "chunked attention: a query sees only its own chunk, which no window can express"
_SPARSE = "sparse attention: every query sees a learned choice of keys"
REFUSED = {
    "bloom": _OWN,
    "codegen": _OWN,
    "deepseek_v32": _SPARSE,
    "falcon": _OWN,
    "glm_moe_dsa": _SPARSE,
    "gpt_neo": _OWN,
    "gptj": _OWN,
    "llama4": _CHUNKED,
    "llama4_text": _CHUNKED,
    "mpt": _OWN,
}
"""`config.model_type` → why."""


def refuse_by_name(config: Any) -> None:
    """Refuse a configuration whose attention an AttentionCall cannot express.

    Raises:
        UnsupportedModelError: with the family and the reason.
    """
    kind = getattr(config, "model_type", None)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"model family {kind!r}",
            found="an encoder-decoder: self-attention and cross-attention share layer numbers",
            expected="a decoder or an encoder alone",
        )
    for family in (kind, getattr(text_config(config), "model_type", None)):
        if family in REFUSED:
            raise UnsupportedModelError(
                f"model family {family!r}",
                found=REFUSED[family],
                expected="softmax attention with causality, a window, a softcap and padding at most",
                fix="attnscope refuses it, because its statistics would be wrong.",
            )


def text_config(config: Any) -> Any:
    """Return the configuration of the text decoder (the configuration itself where there is one modality).

    Raises:
        UnsupportedModelError: there are several.
    """
    if not hasattr(config, "get_text_config"):
        return config
    try:
        return config.get_text_config()
    except ValueError as error:
        raise UnsupportedModelError(
            f"model family {getattr(config, 'model_type', None)!r}", found="several text models", expected="one"
        ) from error


def refuse_own_attention(model: Any) -> None:
    """Refuse a model class that does not route its attention through transformers' interface.

    Raises:
        UnsupportedModelError: with the class and the reason.
    """
    can_set = getattr(type(model), "_can_set_attn_implementation", None)
    if can_set is None:
        raise UnsupportedModelError(
            f"model {type(model).__name__}",
            found="not a transformers PreTrainedModel",
            expected="one, or a folder of one",
        )
    if not can_set():
        raise UnsupportedModelError(
            f"model {type(model).__name__}",
            found=_OWN,
            expected="a model built on the attention interface",
            fix="attnscope refuses it, because a tap would never be called.",
        )
