"""Find what a block's attention and MLP add to the residual stream, and which norms read it, by running it once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._inputs import body_of, forward_options
from ._layout import Layout
from ._probe import _harmless_ids


@dataclass(frozen=True, eq=False)
class Branches:
    """The parts of one block; a part that was not found is None.

    Attributes:
        attention: the module whose output, times `scale`, attention adds to the residual stream.
        mlp: likewise for the MLP (or the experts).
        scale: the model's residual multiplier.
        attention_norm: the norm that reads the residual stream for attention.
        mlp_norm: the norm that reads it for the MLP.
        down: the projection whose output is the MLP's; its input are the MLP's neurons.
        readers: norm → the projections that read its output.
    """

    attention: nn.Module | None = None
    mlp: nn.Module | None = None
    scale: float = 1.0
    attention_norm: nn.Module | None = None
    mlp_norm: nn.Module | None = None
    down: nn.Module | None = None
    readers: dict[nn.Module, tuple[nn.Module, ...]] | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of every block, and what reads the residual stream after the last one."""

    blocks: tuple[Branches, ...]
    final_norm: nn.Module | None
    unembedding: nn.Module | None


@dataclass(eq=False)
class _Ran:
    module: nn.Module
    depth: int
    read: Tensor
    wrote: Tensor


@torch.no_grad()
def find_parts(model: Any, layout: Layout, d_model: int) -> Parts:
    """Return the parts of a model, from one forward of a few tokens.

    A block's two writes are the outermost modules whose outputs, added to its input, give its output.
    """
    body = body_of(model)
    scale = float(getattr(model.config.get_text_config(), "residual_multiplier", None) or 1.0)
    heads = {module for module, _ in layout.attention.items()}
    with _recorded(layout.blocks, d_model) as (inside, around), _recorded_norms(layout, d_model) as norms:
        body(input_ids=_harmless_ids(model, 4), **forward_options(body))
    blocks = tuple(_branches(inside[i], *around[i], scale, heads) for i in range(len(layout.blocks)))
    last = around[len(layout.blocks) - 1][1]
    final = [ran.module for ran in norms if _same(ran.read, last)]
    return Parts(blocks, final[0] if final else None, model.get_output_embeddings())


def is_projection(module: nn.Module) -> bool:
    """Return whether a module is a matrix: a Linear, or GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm over the last dimension."""
    return "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None


def _branches(ran: list[_Ran], before: Tensor, after: Tensor, scale: float, heads: set[nn.Module]) -> Branches:
    wide = [one for one in ran if one.wrote.shape == before.shape]
    best: tuple[int, _Ran, _Ran] | None = None
    for j, late in enumerate(wide):
        for early in wide[:j]:
            depth = early.depth + late.depth
            if (best is None or depth < best[0]) and _sums(before, early.wrote, late.wrote, after, scale):
                best = (depth, early, late)
    first: _Ran | None = best[1] if best else None
    second: _Ran | None = best[2] if best else None
    if first and second and heads & set(second.module.modules()):
        first, second = second, first
    middle = before if first is None else before.float() + scale * first.wrote.float()
    norms = [one for one in ran if is_norm(one.module) and one.read.shape == before.shape]
    of_attention = next((one for one in norms if _same(one.read, before)), None)
    others = [one for one in norms if one is not of_attention and (first is None or one.module is not first.module)]
    of_mlp = next((one for one in others if _same(one.read, middle)), None)
    of_mlp = of_mlp or next((one for one in others if _same(one.read, before)), None)
    inner: _Ran | None = second
    while inner and is_norm(inner.module):
        read = inner.read
        inner = next((one for one in wide if one.wrote is read), None)
    down = [one for one in ran if inner and is_projection(one.module) and _same(one.wrote, inner.wrote)]
    return Branches(
        attention=first.module if first else None,
        mlp=second.module if second else None,
        scale=scale,
        attention_norm=of_attention.module if of_attention else None,
        mlp_norm=of_mlp.module if of_mlp else None,
        down=down[-1].module if down else None,
        readers={
            norm.module: tuple(
                one.module for one in ran if is_projection(one.module) and one.read.data_ptr() == norm.wrote.data_ptr()
            )
            for norm in (of_attention, of_mlp)
            if norm
        },
    )


def _sums(before: Tensor, first: Tensor, second: Tensor, after: Tensor, scale: float) -> bool:
    return _same(before.float() + scale * first.float() + scale * second.float(), after)


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal up to a few roundings of the less precise one."""
    if a.shape != b.shape:
        return False
    eps = max(torch.finfo(x.dtype).eps for x in (a, b))
    a, b = a.float(), b.float()
    return bool((a - b).abs().max() <= 4 * eps * max(1e-6, float(b.abs().max())))


@contextmanager
def _recorded(
    blocks: Iterable[nn.Module], d_model: int
) -> Iterator[tuple[dict[int, list[_Ran]], dict[int, tuple[Tensor, Tensor]]]]:
    """Note what every module inside each block reads and writes, in the order in which they finish."""
    inside: dict[int, list[_Ran]] = {}
    around: dict[int, tuple[Tensor, Tensor]] = {}
    handles = []
    for index, block in enumerate(blocks):
        inside[index] = []
        for name, module in block.named_modules():
            depth = name.count(".") + 1 if name else 0
            handles.append(module.register_forward_hook(_note(inside[index], around, index, depth), with_kwargs=True))
    try:
        yield inside, around
    finally:
        for handle in handles:
            handle.remove()


def _note(seen: list[_Ran], around: dict[int, tuple[Tensor, Tensor]], index: int, depth: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        read = args[0] if args else kwargs.get("hidden_states", kwargs.get("x"))
        wrote = output[0] if isinstance(output, tuple | list) and output else output
        if not isinstance(read, Tensor) or not isinstance(wrote, Tensor):
            return
        if depth == 0:
            around[index] = (read, wrote)
        else:
            seen.append(_Ran(module, depth, read, wrote))

    return hook


@contextmanager
def _recorded_norms(layout: Layout, d_model: int) -> Iterator[list[_Ran]]:
    """Note what the norms outside the blocks read."""
    inner = {module for block in layout.blocks for module in block.modules()}
    seen: list[_Ran] = []
    outside = [m for m in layout.decoder.modules() if is_norm(m) and m not in inner]
    handles = [m.register_forward_hook(_note(seen, {}, 0, 1), with_kwargs=True) for m in outside]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
