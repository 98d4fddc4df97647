"""Find a transformers model's blocks, from the attention modules that were seen calling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..core.errors import UnsupportedModelError

_NO_SOFTMAX = frozenset({
    "conv", "linear_attention", "mamba", "mamba2", "mlp", "moe", "recurrent", "gated_deltanet", "short_conv",
})  # fmt: skip
"""Names in `config.layer_types` of layers that hold no softmax attention."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where things are in one model.

    Attributes:
        decoder: the smallest PreTrainedModel around all blocks; one forward of it is one pass over the layers.
        blocks: every block in order.
        attention: attention module → its layer.
        configs: the configuration objects that choose these modules' attention implementation.
    """

    decoder: nn.Module
    blocks: tuple[nn.Module, ...]
    attention: dict[nn.Module, int]
    configs: tuple[Any, ...]


def find_layout(model: nn.Module, callers: Iterable[nn.Module]) -> Layout:
    """Return the layout of a model whose attention calls came from `callers`.

    A block is the nearest ancestor of an attention module that is a direct child of a ModuleList.

    Raises:
        UnsupportedModelError: the callers do not sit in one list of blocks, or a layer that should hold softmax
            attention did not call.
    """
    names = {module: name for name, module in model.named_modules()}
    modules = dict(model.named_modules())
    where: dict[nn.Module, tuple[str, int]] = {}
    for caller in callers:
        place = _block_of(names.get(caller, ""), modules)
        if place is None:
            raise UnsupportedModelError(
                f"{type(model).__name__}, attention module {names.get(caller) or type(caller).__name__}",
                found="no ModuleList around it",
                expected="attention inside a list of blocks",
            )
        where[caller] = place
    lists = sorted({name for name, _ in where.values()})
    places = set(where.values())
    if len(lists) != 1 or len(places) != len(where):
        raise UnsupportedModelError(
            type(model).__name__,
            found=f"softmax attention in {' and '.join(lists)}, {len(where)} modules in {len(places)} blocks",
            expected="one list of blocks with at most one attention module each",
        )
    blocks = tuple(modules[lists[0]].children())
    attention = {caller: index for caller, (_, index) in sorted(where.items(), key=lambda item: item[1][1])}
    owners = [modules[name] for name in _ancestors(lists[0]) if hasattr(modules[name], "config")]
    decoder = owners[0] if owners else model
    _check_complete(model, decoder, len(blocks), set(attention.values()))
    configs = {id(module.config): module.config for module in [*attention, *owners] if hasattr(module, "config")}
    return Layout(decoder=decoder, blocks=blocks, attention=attention, configs=tuple(configs.values()))


def _ancestors(name: str) -> list[str]:
    """Return the names of a module's ancestors, nearest first, the model itself (`""`) last."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)]


def _block_of(name: str, modules: dict[str, nn.Module]) -> tuple[str, int] | None:
    child = name
    for parent in _ancestors(name):
        if isinstance(modules[parent], nn.ModuleList):
            return parent, int(child.split(".")[-1])
        child = parent
    return None


def _check_complete(model: nn.Module, decoder: nn.Module, n_blocks: int, seen: set[int]) -> None:
    config = getattr(decoder, "config", None)
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or []
    if len(kinds) != n_blocks:
        kinds = [None] * n_blocks
    missing = [index for index in range(n_blocks) if index not in seen and kinds[index] not in _NO_SOFTMAX]
    if missing:
        raise UnsupportedModelError(
            type(model).__name__,
            found=f"no call of the attention interface from layers {missing} of {n_blocks}",
            expected="one call from every layer with softmax attention",
            fix="Their attention cannot be tapped, so attnscope refuses the model rather than guess.",
        )
