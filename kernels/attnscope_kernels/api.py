"""Dispatch: `attend(call, want, implementation)`; an explicit request never falls back, `auto` says what it chose."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

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
    """Return the implementation that `auto` uses for this call: `triton` on a GPU where it covers it, else `tiled`.

    Example:
        >>> import torch; x = torch.randn(1, 1, 3, 4)
        >>> choose(AttentionCall(layer=0, q=x, k=x, v=x, scale=0.5))
        'tiled'
    """
    if call.q.is_cuda and _reason("triton") is None:
        from .impl.triton import uncovered

        return "tiled" if uncovered(call) else "triton"
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
        ContractError: the want does not fit the call, or gradients are needed that this implementation does not have.
        KernelMemoryError: the GPU's memory ran out.

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


def attention_tile(
    call: AttentionCall, heads: Sequence[int], queries: slice, keys: slice, implementation: str = "auto"
) -> Tensor:
    """Return a rectangle of the attention matrix of some heads at full resolution, whatever the length.

    Only the normalisers of the rectangle's own rows are computed, by one pass over the keys.

    Args:
        call: the layer's inputs.
        heads: query heads.
        queries: range of queries; like Python slices, negative bounds count from the end.
        keys: range of keys, likewise.
        implementation: as in `attend`.

    Returns:
        Tensor: `[B, len(heads), queries, keys]` weights, NaN in rows that do not count, 0 where a key is not visible.

    Raises:
        ContractError: no such heads, or an empty range.

    Example:
        >>> import torch; x = torch.randn(1, 2, 5, 4)
        >>> tile = attention_tile(AttentionCall(layer=0, q=x, k=x, v=x, scale=0.5), [1], slice(3, 5), slice(0, 4))
        >>> tile.shape, bool((tile[0, 0, 0].sum() - 1).abs() < 1e-6)
        (torch.Size([1, 1, 2, 4]), True)
    """
    from .impl._rectangle import weights_of

    part = call.select(heads, queries)
    lse = attend(part, Want(output=False, lse=True), implementation).lse
    assert lse is not None
    return weights_of(part, lse, *keys.indices(call.k.shape[2])[:2])


def _reason(name: str) -> str | None:
    if find_spec(f"{__package__}.impl.{name}") is None:
        return "this release does not contain it"
    if name == "triton":
        if find_spec("triton") is None:
            return "triton is not installed (pip install 'attnscope[triton]')"
        if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
            return "no CUDA device"
    return None
