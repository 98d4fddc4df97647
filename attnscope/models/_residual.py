"""Read the residual stream around every block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ..core.errors import UnsupportedModelError
from ._base import ResidualTap, Site


@contextmanager
def residual_hooks(blocks: Sequence[nn.Module], d_model: int, tap: ResidualTap) -> Iterator[None]:
    """Call `tap(layer, site, x)` with x `[B, T, M]` before and after every block; hooks are removed on exit.

    Raises:
        UnsupportedModelError: a block's input or output is not one residual stream.
    """
    with ExitStack() as stack:
        for layer, block in enumerate(blocks):
            before = block.register_forward_pre_hook(_before(layer, d_model, tap), with_kwargs=True)
            stack.callback(before.remove)
            after = block.register_forward_hook(_after(layer, d_model, tap))
            stack.callback(after.remove)
        yield


def _before(layer: int, d_model: int, tap: ResidualTap) -> Callable[..., None]:
    def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = args[0] if args else kwargs.get("hidden_states", kwargs.get("x"))
        tap(layer, "block_input", _checked(stream, block, layer, "block_input", d_model))

    return hook


def _after(layer: int, d_model: int, tap: ResidualTap) -> Callable[..., None]:
    def hook(block: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        stream = output[0] if isinstance(output, tuple | list) else output
        tap(layer, "block_output", _checked(stream, block, layer, "block_output", d_model))

    return hook


def _checked(stream: Any, block: nn.Module, layer: int, site: Site, d_model: int) -> Tensor:
    if not isinstance(stream, Tensor) or stream.dim() != 3 or stream.shape[-1] != d_model:
        found = tuple(stream.shape) if isinstance(stream, Tensor) else type(stream).__name__
        raise UnsupportedModelError(
            f"{site} of layer {layer} ({type(block).__name__})", found=found, expected=f"a tensor [B, T, {d_model}]"
        )
    return stream
