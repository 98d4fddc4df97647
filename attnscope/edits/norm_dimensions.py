"""Interventions on some dimensions of what norms read; the residual stream itself stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..core.errors import TaskError
from ._base import Edit

if TYPE_CHECKING:
    from ..models._base import Site
    from ._tokens import Tokens

Mode = Literal["mean", "zero", "clamp", "direct_zero", "denom_zero"]


@dataclass(frozen=True)
class NormDimensions(Edit):
    """Change dimensions S of what every norm reads, h, or gives, y (2601.22966).

    Acts on every token but each prompt's first one, whose residual is a matter of attention sinks; in calls without a
    batch it acts on every token.

    Attributes:
        dimensions: S, of the residual stream.
        mode: `mean`: h_d becomes its mean; `zero`: h_d becomes 0; `clamp`: h_d stays within -c..c; `direct_zero`: y_d
            becomes 0; `denom_zero`: y_d stays and all others are what the norm gives with x_S at 0, for a norm
            without a mean (one with a mean keeps it, and gives what it would with the smaller deviation).
        values: for `mean` and `clamp`, read (as `mlp 3`, `final`) → a number for each of S.
        kinds: norms that are touched.
        centred: whether the norms take the mean away (LayerNorm); matters to `denom_zero`.
        biases: read → `[M]` that the norm adds; matters to `denom_zero`.

    Raises:
        TaskError: an unknown mode, a dimension that the model lacks, or no number for a read.

    Example:
        >>> NormDimensions((43,), "zero").sites
        ('attention_norm_input', 'mlp_norm_input', 'final_norm_input')
    """

    name: ClassVar[str] = "norm_dimensions"
    dimensions: tuple[int, ...]
    mode: Mode
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict, hash=False)
    kinds: tuple[str, ...] = ("attention", "mlp", "final")
    centred: bool = False
    biases: Mapping[str, Tensor] = field(default_factory=dict, hash=False, compare=False, repr=False)
    _factors: dict[str, Tensor] = field(default_factory=dict, init=False, hash=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise TaskError("mode of an intervention", found=repr(self.mode), expected=", ".join(get_args(Mode)))
        wrong = [read for read, numbers in self.values.items() if len(numbers) != len(self.dimensions)]
        if wrong:
            expected = f"one for each of {len(self.dimensions)} dimensions"
            raise TaskError(f"values of {wrong[0]}", found=f"{len(self.values[wrong[0]])} numbers", expected=expected)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it acts: what the norms read, give, or both."""
        ends = {"direct_zero": ("output",), "denom_zero": ("input", "output")}.get(self.mode, ("input",))
        return tuple(f"{kind}_norm_{end}" for end in ends for kind in self.kinds)  # type: ignore[misc]

    def stream(self, layer: int, site: Site, x: Tensor, tokens: Tokens | None) -> Tensor:
        """Return what the norm is to read, or to have given, `[B, T, M]`."""
        self._check(x.shape[-1])
        kind, _, end = site.split("_")
        read = kind if kind == "final" else f"{kind} {layer}"
        if self.mode == "denom_zero":
            return self._denominator(read, end, x, tokens)
        chosen = list(self.dimensions)
        changed = x.clone()
        if self.mode == "mean":
            changed[..., chosen] = self._numbers(read, x).expand_as(x[..., chosen])
        elif self.mode == "clamp":
            size = self._numbers(read, x)
            changed[..., chosen] = torch.maximum(torch.minimum(x[..., chosen], size), -size)
        else:
            changed[..., chosen] = 0
        return _spared(changed, x, tokens)

    def _denominator(self, read: str, end: str, x: Tensor, tokens: Tokens | None) -> Tensor:
        if end == "input":
            self._factors[read] = self._factor(x)
            return x
        bias = self.biases[read].to(x.device) if read in self.biases else torch.zeros((), device=x.device)
        y = x.float() - bias
        scaled = (y * self._factors.pop(read) + bias).to(x.dtype)
        chosen = list(self.dimensions)
        scaled[..., chosen] = x[..., chosen]
        return _spared(scaled, x, tokens)

    def _factor(self, x: Tensor) -> Tensor:
        """Return rms(x) / rms(x with x_S at 0), `[B, T, 1]`; of deviations from the mean where norms take it away."""
        whole = x.float()
        rest = whole.clone()
        rest[..., list(self.dimensions)] = 0
        if self.centred:
            whole, rest = (one - one.mean(-1, keepdim=True) for one in (whole, rest))
        return whole.norm(dim=-1, keepdim=True) / rest.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def _numbers(self, read: str, x: Tensor) -> Tensor:
        if read not in self.values:
            raise TaskError(f"{self.mode} of {read}", found=f"numbers for {sorted(self.values)}", expected="one there")
        return torch.tensor(self.values[read], dtype=x.dtype, device=x.device)

    def _check(self, width: int) -> None:
        outside = [dimension for dimension in self.dimensions if not 0 <= dimension < width]
        if outside:
            raise TaskError("dimensions of an intervention", found=outside, expected=f"0..{width - 1}")


def _spared(changed: Tensor, x: Tensor, tokens: Tokens | None) -> Tensor:
    """Return `changed` with each prompt's first token as it was."""
    if tokens is None or tokens.prompts is None or tokens.positions is None:
        return changed
    return torch.where((tokens.positions == 0)[..., None].to(x.device), x, changed)
