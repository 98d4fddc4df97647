"""A Batch as keyword arguments of a transformers model, and the model without its vocabulary projection."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ..core.batch import Batch
from ..core.errors import UnsupportedModelError

_PADDING_LEAKS = frozenset({"recurrent_gemma"})


def body_of(model: Any) -> Any:
    """Return the model's body, without the vocabulary projection.

    Raises:
        UnsupportedModelError: body and head cannot be told apart.
    """
    body = model.base_model
    if body is not model or model.get_output_embeddings() is None:
        return body
    inner = getattr(model, "model", None)
    if isinstance(inner, nn.Module):
        return inner
    raise UnsupportedModelError(
        f"model {type(model).__name__}", found="no body apart from the head", expected="a base_model or a .model"
    )


def forward_options(module: nn.Module) -> dict[str, Any]:
    """Return `{"use_cache": False}` where the forward takes it."""
    return {"use_cache": False} if "use_cache" in _parameters(module) else {}


def batch_inputs(module: nn.Module, batch: Batch, device: torch.device) -> dict[str, Any]:
    """Return a batch as the forward's keyword arguments: real tokens stand at positions 0, 1, ….

    Raises:
        UnsupportedModelError: the batch is padded and the forward takes no attention mask, or it is padded on the
            left and the forward takes no position ids.
    """
    inputs: dict[str, Any] = {"input_ids": batch.input_ids.to(device), **forward_options(module)}
    if not batch.padded:
        return inputs
    takes = _parameters(module)
    family = getattr(getattr(module, "config", None), "model_type", None)
    if family in _PADDING_LEAKS and bool((~batch.valid[:, 0]).any()):
        raise UnsupportedModelError(
            f"batch padded on the left for {family}",
            found="recurrent layers that read padding as if it were text",
            expected="padding on the right, or none",
        )
    left = bool((~batch.valid[:, 0]).any())
    if "attention_mask" not in takes or (left and "position_ids" not in takes):
        raise UnsupportedModelError(
            f"padded batch for {type(module).__name__}",
            found=f"a forward without {'position_ids' if 'attention_mask' in takes else 'attention_mask'}",
            expected="prompts of one length",
            fix="Batch prompts of equal length together, or use a batch of one.",
        )
    valid = batch.valid.to(device)
    inputs["attention_mask"] = valid.long()
    if "position_ids" in takes:
        inputs["position_ids"] = _positions(module, valid)
    return inputs


def _positions(module: nn.Module, valid: Tensor) -> Tensor:
    positions = (valid.long().cumsum(1) - 1).clamp(min=0)
    for part in module.modules():  # RoBERTa and its kin count from padding_idx + 1
        padding = getattr(part, "padding_idx", None)
        if hasattr(part, "create_position_ids_from_input_ids") and isinstance(padding, int):
            return positions + padding + 1
    return positions


def _parameters(module: nn.Module) -> set[str]:
    return set(inspect.signature(module.forward).parameters)
