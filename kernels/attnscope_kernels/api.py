"""Dispatch: `attend(call, want, implementation)`; an explicit request never falls back, `auto` says what it chose."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch

from ._validate import check_want
from .contract import AttentionCall, Result, Want
from .errors import ImplementationUnavailableError

IMPLEMENTATIONS = ("reference", "tiled", "triton")


def available() -> dict[str, str | None]:
    """Return each implementation's name and the reason why it cannot run here, or None where it can.

    Example:
        >>> available()["tiled"] is None
        True
    """
    return {name: _reason(name) for name in IMPLEMENTATIONS}


def choose(call: AttentionCall) -> str:
    """Return the implementation that `auto` uses for this call: the fastest one that covers it.

    Example:
        >>> import torch; x = torch.randn(1, 1, 3, 4)
        >>> choose(AttentionCall(layer=0, q=x, k=x, v=x, scale=0.5))
        'tiled'
    """
    return "tiled"


def attend(call: AttentionCall, want: Want | None = None, implementation: str = "auto") -> Result:
    """Run one attention layer and the reductions of its attention matrix that are wanted.

    Args:
        call: the layer's inputs.
        want: the reductions; None means the output z alone.
        implementation: `auto`, `reference` (dense, the formula itself), `tiled` (streaming torch) or `triton`.

    Returns:
        Result: with `implementation` naming what ran.

    Raises:
        ImplementationUnavailableError: the name is unknown or that implementation cannot run here.
        ContractError: the want does not fit the call.

    Example:
        >>> import torch; x = torch.randn(1, 2, 5, 4)
        >>> attend(AttentionCall(layer=0, q=x, k=x, v=x, scale=0.5), Want(entropy=True)).entropy.shape
        torch.Size([1, 2, 5])
    """
    name = choose(call) if implementation == "auto" else implementation
    if name not in IMPLEMENTATIONS:
        raise ImplementationUnavailableError(
            f"kernel implementation {name!r}", expected=f"auto or one of {', '.join(IMPLEMENTATIONS)}"
        )
    reason = _reason(name)
    if reason is not None:
        raise ImplementationUnavailableError(
            f"kernel implementation {name!r} is not available: {reason}",
            fix="Ask for 'tiled' or 'auto', which run everywhere.",
        )
    module = import_module(f".impl.{name}", __package__)
    want = Want() if want is None else want
    check_want(call, want)
    with torch.autocast(call.q.device.type, enabled=False):  # statistics are never in reduced precision
        result: Result = module.attend(call, want)
    return result


def _reason(name: str) -> str | None:
    if find_spec(f"{__package__}.impl.{name}") is None:
        return "this release does not contain it"
    return None
