"""One tiny forward that finds out which modules call the attention interface, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnscope_kernels.contract import AttentionCall

from ..core.errors import UnsupportedModelError
from ._inputs import body_of, forward_options
from ._masks import MaskKind, recorded_masks, tap_mask
from ._session import NAME, discovery, tap_attention


def register() -> None:
    """Make the tap known to transformers (once; a name that is known already is left alone)."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    if AttentionInterface._global_mapping.get(NAME) is not tap_attention:
        AttentionInterface.register(NAME, tap_attention)
    if AttentionMaskInterface._global_mapping.get(NAME) is not tap_mask:
        AttentionMaskInterface.register(NAME, tap_mask)


@contextmanager
def switched(configs: list[Any]) -> Iterator[None]:
    """Choose the tap as attention implementation in these configuration objects, and restore them on exit."""
    register()
    before = [(config, config._attn_implementation_internal) for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = NAME
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def probe(model: nn.Module, n_tokens: int = 4, *, on_meta: bool = False) -> dict[nn.Module, AttentionCall]:
    """Run one forward of a few tokens and return each calling attention module with its call, in order.

    Args:
        model: a transformers model.
        n_tokens: of the forward.
        on_meta: the model has no weights; its forward makes shapes only.

    Raises:
        UnsupportedModelError: nothing calls, a module calls twice, the forward fails with a tap's masks, or a call
            says another causality or window than the mask that it was given.
    """
    calls: dict[nn.Module, AttentionCall] = {}
    masks: list[tuple[Tensor, MaskKind]] = []

    def record(module: nn.Module, call: AttentionCall, mask: Tensor | None) -> Tensor:
        if module in calls:
            raise UnsupportedModelError(
                f"model {type(model).__name__}",
                found=f"one {type(module).__name__} that calls twice in one forward",
                expected="one attention call of each module",
            )
        calls[module] = call
        _check_agreement(module, call, mask, masks)
        return call.v.new_zeros(*call.q.shape[:3], call.v.shape[3])

    body = body_of(model)
    inputs = {"input_ids": _harmless_ids(model, n_tokens), **forward_options(body)}
    if on_meta:  # with a mask, transformers does not look for packed sequences, which needs numbers
        inputs["input_ids"] = inputs["input_ids"].to("meta")
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    tokens = (discovery.set(record), recorded_masks.set(masks))
    try:
        with switched(_configs(model)), torch.no_grad():
            body(**inputs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise UnsupportedModelError(
            f"model {type(model).__name__}",
            found=f"a forward that fails with a tap attached ({type(error).__name__}: {error})",
            expected="one that runs with padding masks [B, Tk] in place of T×T masks",
        ) from error
    finally:
        discovery.reset(tokens[0])
        recorded_masks.reset(tokens[1])
    if not calls:
        raise UnsupportedModelError(
            f"model {type(model).__name__}",
            found="no call of the attention interface in a forward of the text",
            expected="one from every layer with softmax attention",
        )
    return calls


def _configs(model: nn.Module) -> list[Any]:
    found = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    return [config for config in found.values() if hasattr(config, "_attn_implementation_internal")]


def _harmless_ids(model: nn.Module, n_tokens: int) -> Tensor:
    """Return `[1, n]` token ids that no configuration gives a meaning (image placeholders, padding, …)."""
    config: Any = model.config
    special: set[int] = set()
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        for name, value in vars(part).items():
            if name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
                special.add(value)
    vocabulary = config.get_text_config().vocab_size
    free = [index for index in range(min(vocabulary, 4096)) if index not in special][:n_tokens] or [0]
    device = input_device(model)
    return torch.tensor([(free * n_tokens)[:n_tokens]], device=device)


def input_device(model: Any) -> torch.device:
    """Return the device on which the model wants its token ids."""
    weight = model.get_input_embeddings().weight
    if weight.device.type != "meta":
        return weight.device
    hook = getattr(model, "_hf_hook", None)
    return torch.device(getattr(hook, "execution_device", None) or "cpu")


def _check_agreement(
    module: nn.Module, call: AttentionCall, mask: Tensor | None, masks: list[tuple[Tensor, MaskKind]]
) -> None:
    said = MaskKind(call.causal, call.window)
    given = [kind for made, kind in masks if made is mask]
    if given == [said]:
        return
    if not given and mask is not None and said in [kind for _, kind in masks]:  # the same mask on another device
        return
    found = str(given[0]) if given else "none that the model asked transformers for"
    raise UnsupportedModelError(
        f"attention module {type(module).__name__}",
        found=f"mask: {found}, but the call says {said}",
        expected="the same causality and window in both",
        fix="attnscope refuses it, because one of the two would be ignored.",
    )
