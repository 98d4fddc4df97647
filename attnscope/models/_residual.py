"""Read, and where asked change, the residual stream, what blocks add to it, and what norms make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ..core.errors import UnsupportedModelError
from ._base import BLOCK_SITES, ResidualTap, Site
from ._parts import Parts


@contextmanager
def residual_hooks(
    blocks: Sequence[nn.Module],
    d_model: int,
    tap: ResidualTap,
    sites: Sequence[Site] = BLOCK_SITES,
    parts: Callable[[], Parts] | None = None,
) -> Iterator[None]:
    """Call `tap(layer, site, x)` at the sites; a tensor that it returns takes x's place; hooks are removed on exit.

    Raises:
        UnsupportedModelError: a site is not one tensor of the residual stream's width, or the model has no such site.
    """
    places = [(site, *place) for site in sites for place in _places(site, blocks, parts)]
    with ExitStack() as stack:
        for site, layer, module, reads, scale in places:
            width = None if site == "neurons" else d_model
            handle = (_before if reads else _after)(module, layer, site, width, tap, scale)
            stack.callback(handle.remove)
        yield


def _places(
    site: Site, blocks: Sequence[nn.Module], parts: Callable[[], Parts] | None
) -> Iterator[tuple[int, nn.Module, bool, float]]:
    """Yield (layer, module, whether the site is its input, factor from its output to the stream)."""
    if site in BLOCK_SITES:
        yield from ((layer, block, site == "block_input", 1.0) for layer, block in enumerate(blocks))
        return
    found = parts() if parts is not None else None
    if found is None:
        raise _lacks(site, "any layer")
    if site in ("final_norm_input", "final_norm_output"):
        if found.final_norm is None:
            raise _lacks(site, "the end")
        yield len(blocks), found.final_norm, site == "final_norm_input", 1.0
        return
    name = {"neurons": "down"}.get(site, site.removesuffix("_output").removesuffix("_input"))
    reads = site == "neurons" or site.endswith("_input")
    for layer, block in enumerate(found.blocks):
        module = getattr(block, name)
        if module is None:
            raise _lacks(site, f"layer {layer}")
        writes = site in ("attention_output", "mlp_output")
        yield layer, module, reads, block.scale if writes else 1.0


def _lacks(site: Site, where: str) -> UnsupportedModelError:
    expected = {
        "attention_norm": "a norm that reads the residual stream before attention",
        "mlp_norm": "a norm that reads the residual stream before the MLP",
        "final_norm": "a norm that reads the residual stream after the last block",
        "neurons": "an MLP whose output is that of one projection",
    }
    name = site.removesuffix("_input").removesuffix("_output")
    return UnsupportedModelError(
        f"{site} at {where}",
        found="no such part of this model",
        expected=expected.get(name, "attention and MLP whose outputs are added to the residual stream"),
    )


def _before(module: nn.Module, layer: int, site: Site, width: int | None, tap: ResidualTap, scale: float) -> Any:
    def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = next((name for name in ("hidden_states", "x", "input") if name in kwargs), None)
        stream = args[0] if args else kwargs.get(named) if named else None
        changed = tap(layer, site, _checked(stream, block, layer, site, width))
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, str(named): changed})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _after(module: nn.Module, layer: int, site: Site, width: int | None, tap: ResidualTap, scale: float) -> Any:
    def hook(block: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        several = isinstance(output, tuple | list)
        stream = _checked(output[0] if several else output, block, layer, site, width)
        changed = tap(layer, site, stream if scale == 1 else stream * scale)
        if changed is None:
            return None
        changed = changed if scale == 1 else changed / scale
        return (changed, *output[1:]) if several else changed

    return module.register_forward_hook(hook)


def _checked(stream: Any, block: nn.Module, layer: int, site: Site, width: int | None) -> Tensor:
    if not isinstance(stream, Tensor) or stream.dim() != 3 or width not in (None, stream.shape[-1]):
        found = tuple(stream.shape) if isinstance(stream, Tensor) else type(stream).__name__
        raise UnsupportedModelError(
            f"{site} of layer {layer} ({type(block).__name__})",
            found=found,
            expected=f"a tensor [B, T, {width or 'N'}]",
        )
    return stream
