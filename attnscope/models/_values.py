"""W_V of every attention module, split by KV head: found by what it computes, whatever its name and its layout."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import UnsupportedModelError
from ._layout import Layout
from ._parts import Parts
from ._probe import probe


@dataclass(frozen=True, eq=False)
class Values:
    """Where one layer's values come from.

    Attributes:
        module: a Linear, or GPT-2's Conv1D; it may give queries and keys too.
        features: `[G, Dv]` which features of its output are each KV head's values.
    """

    module: nn.Module
    features: Tensor

    def weight(self) -> Tensor:
        """Return W_V as `[G, M, Dv]`: KV head g reads x @ W_V[g] (plus a bias, where there is one).

        Raises:
            UnsupportedModelError: the weights are offloaded.
        """
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        if weight.device.type == "meta":
            raise _refusal(type(self.module).__name__, "weights that are offloaded")
        if isinstance(self.module, nn.Linear):
            weight = weight.T
        return weight.detach()[:, self.features.to(weight.device)].permute(1, 0, 2)


def find_values(model: Any, layout: Layout, parts: Parts) -> dict[int, Values | str]:
    """Return where the values of each attention layer come from, or why they are not one matrix of what its norm gives.

    One forward of a few tokens: the projection is the one whose output holds exactly the values of the attention call,
    and whose input is exactly what the attention norm gave (or the block's input, where no norm stands before it).
    """
    read: dict[nn.Module, Tensor] = {}
    wrote: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        if isinstance(given, Tensor):
            read[module] = given
        if isinstance(output, Tensor):
            wrote[module] = output

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note(module, args, kwargs, None)

    found: dict[int, Values | str] = {}
    with ExitStack() as stack:
        for attention, layer in layout.attention.items():
            norm = parts.blocks[layer].attention_norm
            for module in [*_projections(attention), *([norm] if norm is not None else [])]:
                stack.callback(module.register_forward_hook(note, with_kwargs=True).remove)
            stack.callback(layout.blocks[layer].register_forward_pre_hook(before, with_kwargs=True).remove)
        calls = probe(model)
    for attention, layer in layout.attention.items():
        norm = parts.blocks[layer].attention_norm
        source = read.get(layout.blocks[layer]) if norm is None else wrote.get(norm)
        ran = {module: wrote[module] for module in _projections(attention) if module in wrote}
        values = _match(ran, calls[attention].v)
        if values is None:
            found[layer] = "no plain Linear or Conv1D whose output is the values"
        elif source is None or not _equal(read[values.module], source):
            found[layer] = "values of something other than what the attention norm gives"
        else:
            found[layer] = values
    return found


def value_weight(found: Mapping[int, Values | str], layer: int) -> Tensor:
    """Return W_V `[G, M, Dv]` of one layer.

    Raises:
        UnsupportedModelError: the values are not one plain matrix of what the attention norm gives.
    """
    values = found[layer]
    if isinstance(values, str):
        raise _refusal(f"layer {layer}", values)
    return values.weight()


def _projections(attention: nn.Module) -> list[nn.Module]:
    return [m for m in attention.modules() if type(m) is nn.Linear or type(m).__name__ == "Conv1D"]


def _match(ran: Mapping[nn.Module, Tensor], v: Tensor) -> Values | None:
    """Return the projection and the features that equal the values `[1, G, T, Dv]`."""
    wanted = v[0].transpose(0, 1)
    for module, output in ran.items():
        for features in _layouts(output.shape[-1], v.shape[1], v.shape[3]):
            if output.shape[:2] == (1, v.shape[2]) and _equal(output[0][:, features.to(output.device)], wanted):
                return Values(module, features)
    return None


def _layouts(width: int, n_kv_heads: int, value_dim: int) -> list[Tensor]:
    """Return the features `[G, Dv]` of the known layouts: values alone or last of all (GPT-2, Phi-3); or, head by head,
    last of each KV head's part (GPT-NeoX)."""
    size, features = n_kv_heads * value_dim, torch.arange(width)
    if width < size:
        return []
    layouts = [features[width - size :].view(n_kv_heads, value_dim)]
    if width > size and width % n_kv_heads == 0:
        layouts.append(features.view(n_kv_heads, -1)[:, -value_dim:])
    return layouts


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.to(b), b)


def _refusal(name: str, found: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"value projection of {name}",
        found=found,
        expected="values that are one plain matrix of what the attention norm gives",
        fix="Statistics of attention itself do not need it; the copying score does.",
    )
