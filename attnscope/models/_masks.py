"""The mask function: a `[B, Tk]` padding mask, and a refusal of every mask that a window and causality cannot say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UnsupportedModelError


@dataclass(frozen=True)
class MaskKind:
    """What one mask function says: causal or not, and a window in the contract's sense (|distance| < window)."""

    causal: bool
    window: int | None = None


recorded_masks: ContextVar[list[tuple[Tensor, MaskKind]] | None] = ContextVar("recorded_masks", default=None)
"""Where a probe forward collects every mask that the model asked for, with its kind; None outside a probe."""

_REASONS = {
    "chunked_overlay": "a chunked attention mask",
    "blockwise_overlay": "bidirectional blocks (image tokens that see each other)",
    "packed_sequence_mask_function": "several sequences packed in one row",
    "remap_positions_for_packed_sequence": "several sequences packed in one row",
    "or_masks": "a union of masks",
}


def tap_mask(
    *args: Any,
    q_length: Any = None,
    kv_length: int = 0,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """Return the `[B, Tk]` bool padding mask of the keys, or None where none is padding; never a T×T tensor.

    transformers calls this in place of its own mask builder while a tap is attached.

    Raises:
        UnsupportedModelError: the mask is more than causality, a window and padding, or the cache is longer than
            what has been seen (static caches).
    """
    if args or mask_function is None or q_length is None:
        raise UnsupportedModelError(
            "the model's attention mask",
            found="a call of the mask interface that this release does not know",
            expected="the keywords q_length, kv_length, q_offset, kv_offset, mask_function and attention_mask",
            fix="Use a transformers release between 5.17 and the newest one that attnscope was tested with.",
        )
    kind = read_kind(mask_function)
    if kind.causal and int(q_offset) + int(q_length) != int(kv_offset) + int(kv_length):
        raise UnsupportedModelError(
            "the key/value cache",
            found=f"{int(kv_offset) + int(kv_length)} key slots for {int(q_offset) + int(q_length)} tokens seen",
            expected="a cache that holds exactly the tokens seen",
            fix="Use transformers' DynamicCache, not a static one, while a tap is attached.",
        )
    recorded = recorded_masks.get()
    if recorded is not None:  # a probe: hand out a mask of its own, so that each call shows which one it got
        mask = torch.ones(
            int(kwargs.get("batch_size", 1)), int(kv_length), dtype=torch.bool, device=kwargs.get("device")
        )
        recorded.append((mask, kind))
        return mask
    if attention_mask is None:
        return None
    mask = attention_mask[:, -int(kv_length) :].bool()
    return None if bool(mask.all()) else mask


def read_kind(function: Callable[..., Any]) -> MaskKind:
    """Return what a transformers mask function says.

    Raises:
        UnsupportedModelError: it says something that an AttentionCall cannot.
    """
    qualified = getattr(function, "__qualname__", type(function).__qualname__)
    name = qualified.split(".")[0]
    if name == "causal_mask_function":
        return MaskKind(causal=True)
    if name == "bidirectional_mask_function":
        return MaskKind(causal=False)
    if name == "sliding_window_overlay":
        return MaskKind(causal=False, window=int(_captured(function, "sliding_window")))
    if name == "sliding_window_bidirectional_overlay":
        return MaskKind(causal=False, window=int(_captured(function, "sliding_window")) + 1)
    if name == "and_masks":
        parts = [read_kind(part) for part in _captured(function, "mask_functions")]
        windows = [part.window for part in parts if part.window is not None]
        return MaskKind(causal=any(part.causal for part in parts), window=min(windows) if windows else None)
    raise UnsupportedModelError(
        "the model's attention mask",
        found=_REASONS.get(name, f"a mask function of its own, {qualified}"),
        expected="causality, a sliding window and padding, nothing else",
        fix="attnscope refuses such a call, because its statistics would be wrong.",
    )


def _captured(function: Callable[..., Any], name: str) -> Any:
    values = inspect.getclosurevars(function).nonlocals
    if name not in values:
        raise UnsupportedModelError(
            f"the mask function {getattr(function, '__qualname__', function)}",
            found=f"captured values {sorted(values)}",
            expected=f"a value named {name}",
            fix="Use a transformers release that attnscope was tested with.",
        )
    return values[name]
