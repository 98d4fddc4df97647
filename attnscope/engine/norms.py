"""The norms that read the residual stream: which there are, and what each one does to a coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ..core.errors import UnsupportedModelError
from ..models._base import Site
from ..models._parts import Parts

if TYPE_CHECKING:
    from ..models._base import Scope

ReadKind = Literal["attention", "mlp", "final"]


@dataclass(frozen=True, eq=False)
class Norm:
    """One norm that reads the residual stream.

    Attributes:
        kind: what it reads for.
        layer: its block; the number of blocks for the final norm.
        module: the norm.
        readers: plain projections that read its output; the vocabulary projection for the final norm.
        weight: `[M]` factor lambda on each normalised coordinate, float64 on the CPU.
        bias: `[M]` what it adds, float64 on the CPU; zeros for a norm without.
        centred: whether it takes the mean away first (LayerNorm).
    """

    kind: ReadKind
    layer: int
    module: nn.Module
    readers: tuple[nn.Module, ...]
    weight: Tensor
    bias: Tensor
    centred: bool

    @property
    def label(self) -> str:
        """Name in tables, as `mlp 3`."""
        return label(self.kind, self.layer)


def label(kind: str, layer: int) -> str:
    """Return the name of a read.

    Example:
        >>> label("mlp", 3), label("final", 8)
        ('mlp 3', 'final')
    """
    return kind if kind == "final" else f"{kind} {layer}"


def find_norms(scope: Scope) -> tuple[Norm, ...]:
    """Return the norms in order of depth; a block whose branches share one norm has no `mlp` read.

    Raises:
        UnsupportedModelError: some block has no norm that reads the residual stream, or there is none at the end; or
            its norms cannot be told apart because what attention and MLP add was not found.

    Example:
        >>> import attnscope
        >>> [norm.label for norm in find_norms(attnscope.load(device="cpu"))[-3:]]
        ['attention 7', 'mlp 7', 'final']
    """
    parts = parts_of(scope)
    kinds = norm_kinds(scope)
    # without an mlp norm, only knowing both writes tells a shared norm from one that was not recognised
    needed: tuple[Site, ...] = () if "mlp" in kinds else ("attention_output", "mlp_output")
    with scope.attach(residual=lambda *_: None, sites=(*norm_sites(kinds, "input"), *needed)):
        pass
    found: list[Norm] = []
    for layer, block in enumerate(parts.blocks):
        for kind in kinds[:-1]:
            module = block.attention_norm if kind == "attention" else block.mlp_norm
            if module is not None:
                found.append(_norm(kind, layer, module, (block.readers or {}).get(module, ()), scope.info.d_model))
    if parts.final_norm is not None:
        heads = () if parts.unembedding is None else (parts.unembedding,)
        found.append(_norm("final", len(parts.blocks), parts.final_norm, heads, scope.info.d_model))
    return tuple(found)


def norm_kinds(scope: Scope) -> tuple[ReadKind, ...]:
    """Return the kinds of norm that the model has; no `mlp` where one norm serves both branches everywhere."""
    shared = all(block.mlp_norm is None for block in parts_of(scope).blocks)
    return ("attention", "final") if shared else ("attention", "mlp", "final")


def norm_sites(kinds: tuple[ReadKind, ...], end: Literal["input", "output"]) -> tuple[Site, ...]:
    """Return the sites before or after these norms.

    Example:
        >>> norm_sites(("attention", "final"), "input")
        ('attention_norm_input', 'final_norm_input')
    """
    return tuple(f"{kind}_norm_{end}" for kind in kinds)  # type: ignore[misc]


def parts_of(scope: Scope) -> Parts:
    """Return the modules that write to and read from the residual stream.

    Raises:
        UnsupportedModelError: the backend has no such modules.
    """
    parts: Parts | None = getattr(scope, "parts", None)
    if parts is None:
        raise UnsupportedModelError(
            f"norms of {scope.info.model_id}",
            found="a backend without norms and MLPs",
            expected="a transformers model",
        )
    return parts


def in_out(module: nn.Module) -> Tensor:
    """Return a projection's weight as `[features out, features in]` (GPT-2's Conv1D keeps it the other way)."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if type(module).__name__ == "Conv1D" else weight


def _norm(kind: ReadKind, layer: int, module: nn.Module, readers: tuple[nn.Module, ...], width: int) -> Norm:
    weight, bias, centred = measure(module, width)
    plain = tuple(reader for reader in readers if is_plain(reader))
    return Norm(kind, layer, module, plain if len(plain) == len(readers) else (), weight, bias, centred)


def is_plain(reader: nn.Module) -> bool:
    """Return whether a module's weight is a matrix of floating-point numbers in memory."""
    weight = getattr(reader, "weight", None)
    if not isinstance(weight, Tensor):
        return False
    return weight.dim() == 2 and weight.is_floating_point() and weight.device.type != "meta"


@torch.no_grad()
def measure(module: nn.Module, width: int) -> tuple[Tensor, Tensor, bool]:
    """Return a norm's weight, its bias, and whether it takes the mean away, from what it does to four vectors.

    Works however the norm stores its weight (Gemma keeps lambda - 1).

    Example:
        >>> weight, bias, centred = measure(torch.nn.LayerNorm(4), 4)
        >>> weight.round(decimals=3).tolist(), centred
        ([1.0, 1.0, 1.0, 1.0], True)
    """
    stored: Tensor = module.weight  # type: ignore[assignment]
    probe = torch.ones(width, dtype=torch.float64)
    probe[1::2] = -1
    probe = (probe - probe.mean()) / probe.std(correction=0)

    def give(x: Tensor) -> Tensor:
        output: Tensor = module((64 * x).to(stored)[None, None])
        return output[0, 0].double().cpu()

    bias = give(torch.zeros_like(probe))
    plus, minus, shifted = give(probe), give(-probe), give(probe + 1)
    centred = bool((shifted - plus).abs().max() < 0.1 * (plus - bias).abs().max())
    return (plus - minus) / 2 / probe, bias, centred
