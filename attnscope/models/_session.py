"""Who is listening: the tap of each attached attention module, and the count of its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from attnscope_kernels.contract import AttentionCall, Tap

from ..core.errors import TapError, UnsupportedModelError
from ._attention import normalise

NAME = "attnscope_tap"
"""Name under which transformers knows the attention function (no `sdpa`, `flash` or `/`: these change its meaning)."""


class Session:
    """One attached tap and the calls that it got during the current forward."""

    def __init__(self, tap: Tap, layers: Mapping[nn.Module, int], model_id: str) -> None:
        self.tap, self.layers, self.model_id = tap, dict(layers), model_id
        self.calls: dict[int, int] = {}

    def begin(self) -> None:
        """Start counting one forward."""
        self.calls = {}

    def end(self) -> None:
        """Check the count of one forward.

        Raises:
            TapError: a layer's attention did not reach the tap exactly once.
        """
        wrong = {layer: self.calls.get(layer, 0) for layer in self.layers.values()}
        wrong = {layer: count for layer, count in wrong.items() if count != 1}
        if wrong:
            listed = ", ".join(f"layer {layer}: {count}" for layer, count in sorted(wrong.items()))
            raise TapError(
                f"tap on {self.model_id}",
                found=f"calls in one forward of {listed}",
                expected=f"exactly one call in each of the {len(self.layers)} attention layers",
                fix="Another library may have replaced the attention implementation while the tap was attached.",
            )

    def call(self, call: AttentionCall) -> Tensor:
        """Hand one call to the tap and return its z.

        Raises:
            TapError: the tap returned something that is not z `[B, H, Tq, Dv]`.
        """
        self.calls[call.layer] = self.calls.get(call.layer, 0) + 1
        z = self.tap(call)
        expected = (*call.q.shape[:3], call.v.shape[3])
        if not isinstance(z, Tensor) or tuple(z.shape) != expected or z.dtype != call.v.dtype:
            found = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            raise TapError(
                f"tap at layer {call.layer}", found=found, expected=f"z of {call.v.dtype} {expected} [B, H, Tq, Dv]"
            )
        return z


sessions: WeakKeyDictionary[nn.Module, Session] = WeakKeyDictionary()
"""The session of every attention module that is attached now."""

Discover = Callable[[nn.Module, AttentionCall, Tensor | None], Tensor]

discovery: ContextVar[Discover | None] = ContextVar("discovery", default=None)
"""Takes (module, call, mask as given) of every module during a probe forward; None outside a probe."""


def tap_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute attention for transformers: normalise the call, hand it to the tap, return `[B, Tq, H, Dv]`.

    Raises:
        TapError: no tap is attached to this module.
        UnsupportedModelError: the call cannot be expressed.
    """
    probe = discovery.get()
    if probe is not None:
        call = normalise(module, _layer_of(module), query, key, value, attention_mask, options)
        z = probe(module, call, attention_mask)
        return z.transpose(1, 2).contiguous(), None
    session = sessions.get(module)
    if session is None:
        raise UnsupportedModelError(
            f"attention module {type(module).__name__}",
            found="a call from a module outside the tapped layers",
            expected="calls from the text decoder's attention layers only",
            fix="Run inputs that use the text decoder alone, or detach the tap first.",
        )
    z = session.call(normalise(module, session.layers[module], query, key, value, attention_mask, options))
    return z.transpose(1, 2).contiguous(), None


def _layer_of(module: nn.Module) -> int:
    layer = getattr(module, "layer_idx", None)
    return layer if isinstance(layer, int) else 0
