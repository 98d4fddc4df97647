"""How some dimensions act through every norm: by its denominator, or directly; who writes them; massive activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ..core import statistics
from ..core.names import Variable
from ..core.sink_report import MassiveActivation
from ..models._base import Site
from ._massive import Massive
from .batches import PromptSet
from .norm_stream import Progress, Tokens, stream
from .norms import Norm, find_norms, in_out, label, norm_kinds, norm_sites

if TYPE_CHECKING:
    from ..models._base import Scope

CHUNK = 512
"""Tokens whose readers' outputs exist at once, and tokens on which the logits' spread is measured."""
VARIABLES = {
    "r": Variable("norm_sink_share", ("read",), "1", "mean |h_S| / |h|", "2601.22966"),
    "denominator": Variable("norm_denominator", ("read",), "1", "mean rms(x) / rms(x with S at 0)", "2601.22966"),
    "rms": Variable("norm_output_rms", ("read",), "1", "mean rms of the norm's output", "2601.22966"),
    "direct": Variable("norm_direct_share", ("read",), "1", "mean |W_S y_S| / |W y|", "2601.22966"),
    "writes": Variable("sink_dimension_writes", ("module", "dimension"), "1", "mean that the module adds"),
}


@dataclass(eq=False)
class _Sums:
    """Sums of one read over tokens, float64 on its device."""

    total: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, values: Tensor) -> None:
        total = values.sum(0, dtype=torch.float64)
        self.total[name] = self.total[name] + total if name in self.total else total
        self.tokens[name] = self.tokens.get(name, 0) + len(values)

    def mean(self, name: str) -> np.ndarray:
        if not self.tokens.get(name):
            return np.array(np.nan)
        return self.total[name].cpu().numpy() / self.tokens[name]


def norm_shares(
    scope: Scope,
    prompts: PromptSet,
    dimensions: Sequence[int],
    *,
    norms: Sequence[Norm] | None = None,
    floor: float = 100.0,
    least_ratio: float = 1000.0,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Progress | None = None,
) -> tuple[xr.Dataset, tuple[MassiveActivation, ...]]:
    """Return what the dimensions S do at every norm, and the massive activations at block outputs.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        dimensions: S, of the residual stream; may be empty.
        norms: as `find_norms` gives them; None finds them.
        floor: |x| of a massive activation is above it; 0 for none (2402.17762 takes 100).
        least_ratio: and at least this many times the median |x| of its hidden state.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: called with tokens done and tokens in all.

    Returns:
        Means over all tokens but each prompt's first, `[read]`: `norm_sink_share` 0..1, `norm_denominator` >= 1 for a
        norm without a mean, `norm_output_rms`, `norm_direct_share` (at the final norm: of the logits' standard
        deviation over the vocabulary, on 512 tokens spread evenly; NaN where nothing plain reads the norm); and
        `sink_dimension_writes` `[module, dimension]`, the mean that each module adds. At most 200 massive
        activations, largest ratio first.

    Raises:
        TaskError: empty or too long prompts.
        UnsupportedModelError: a block has no norm that reads the residual stream, or hidden states overflow.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [list(range(40))]})
        >>> shares, massive = norm_shares(attnscope.load(device="cpu"), prompts, [43])
        >>> bool(shares.norm_denominator[3] > 1.1)
        True
    """
    norms = find_norms(scope) if norms is None else norms
    by_label = {norm.label: norm for norm in norms}
    sums: dict[str, _Sums] = {norm.label: _Sums() for norm in norms}
    writes: dict[str, _Sums] = {}
    chosen = list(dimensions)
    massive = Massive(floor, least_ratio)
    sampled = sample([len(ids) for ids in prompts["input_ids"]], CHUNK)

    def see(tokens: Tokens, layer: int, site: Site, x: Tensor) -> None:
        kind = site.partition("_")[0]
        if site == "block_output":
            massive.see(tokens.batch, layer, x)
        elif site in _WRITES:
            name = "embedding" if site == "block_input" else label(kind, layer)
            if site != "block_input" or layer == 0:
                writes.setdefault(name, _Sums()).add("mean", tokens.of(x[..., chosen]))
        elif site.endswith("_norm_input"):
            _read(sums[label(kind, layer)], by_label[label(kind, layer)], tokens.of(x), chosen)
        else:
            _given(sums[label(kind, layer)], by_label[label(kind, layer)], tokens, x, chosen, sampled)

    kinds = norm_kinds(scope)
    sites: list[Site] = [*norm_sites(kinds, "input"), *norm_sites(kinds, "output"), "block_output"]
    sites += _WRITES if _writes_known(scope) else []
    stream(scope, prompts, sites, see, implementation=implementation, batch_tokens=batch_tokens, progress=progress)
    values = [
        (VARIABLES[name], np.array([float(sums[norm.label].mean(name)) for norm in norms]))
        for name in ("r", "denominator", "rms", "direct")
    ]
    written = np.array([np.broadcast_to(one.mean("mean"), len(chosen)) for one in writes.values()])
    values.append((VARIABLES["writes"], written.reshape(len(writes), len(chosen))))
    coords: dict[str, list[str] | list[int]] = {
        "read": [norm.label for norm in norms],
        "module": list(writes),
        "dimension": chosen,
    }
    return statistics.dataset(scope.info, values, coords=coords), massive.largest()


_WRITES: list[Site] = ["block_input", "attention_output", "mlp_output"]


def _writes_known(scope: Scope) -> bool:
    parts = scope.parts  # type: ignore[attr-defined]
    return all(block.attention is not None and block.mlp is not None for block in parts.blocks)


def spread(x: Tensor, centred: bool) -> Tensor:
    """Return what a norm divides by, `[..., M]` → `[...]`: the rms, or the standard deviation where it is centred.

    Example:
        >>> spread(torch.tensor([3.0, 5.0]), centred=True)
        tensor(1.)
    """
    x = x if x.dtype == torch.float64 else x.float()
    x = x - x.mean(-1, keepdim=True) if centred else x
    return x.square().mean(-1).sqrt()


def without(x: Tensor, dimensions: Sequence[int]) -> Tensor:
    """Return a copy with some coordinates at 0."""
    x = x.clone()
    x[..., list(dimensions)] = 0
    return x


def sample(lengths: Sequence[int], most: int) -> set[tuple[int, int]]:
    """Return (prompt, position) of at most `most` tokens, spread evenly over all but the first ones.

    Example:
        >>> sorted(sample([3, 4], 2))
        [(0, 1), (1, 1)]
    """
    places = [(prompt, at) for prompt, length in enumerate(lengths) for at in range(1, length)]
    if len(places) <= most:
        return set(places)
    return {places[i * len(places) // most] for i in range(most)}


def _read(sums: _Sums, norm: Norm, h: Tensor, chosen: list[int]) -> None:
    part, size = (torch.linalg.vector_norm(one, dim=1, dtype=torch.float64) for one in (h[:, chosen], h))
    sums.add("r", (part / size).nan_to_num(0.0))
    whole, rest = spread(h, norm.centred), spread(without(h, chosen), norm.centred)
    sums.add("denominator", whole / rest.clamp_min(1e-12))


def _given(
    sums: _Sums, norm: Norm, tokens: Tokens, x: Tensor, chosen: list[int], sampled: set[tuple[int, int]]
) -> None:
    y = tokens.of(x)
    sums.add("rms", spread(y, centred=False))
    if norm.kind == "final":
        y = y[[at in sampled for at in tokens.places]]
    for part in y.split(CHUNK if norm.kind != "final" else CHUNK // 4):
        if norm.readers and len(part):
            sums.add("direct", _direct(norm.readers, part, chosen, logits=norm.kind == "final"))


def _direct(readers: Sequence[nn.Module], y: Tensor, chosen: list[int], *, logits: bool) -> Tensor:
    """Return |W_S y_S| / |W y| of each token, W all readers' weights on top of each other."""
    part, whole = torch.zeros(len(y), device=y.device), torch.zeros(len(y), device=y.device)
    for reader in readers:
        weight = in_out(reader)
        x = y.to(weight)
        for total, output in ((part, x[:, chosen] @ weight[:, chosen].T), (whole, x @ weight.T)):
            output = output.float()
            power = output.var(1, correction=0) if logits else output.square().sum(1)
            total += power.to(total.device)
    return (part / whole).sqrt().nan_to_num(0.0)
