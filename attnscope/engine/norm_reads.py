"""What every norm reads: how large each dimension of the residual stream is, on all tokens but each prompt's first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..core import statistics
from ..core.names import Variable
from ..models._base import Site
from .batches import PromptSet
from .norm_stream import Progress, Tokens, stream
from .norms import Norm, find_norms, label, norm_kinds, norm_sites

if TYPE_CHECKING:
    from ..models._base import Scope

_READS = ("read", "dimension")
VARIABLES = {
    "mean_abs": Variable("norm_read_mean_abs", _READS, "1", "mean |h| that the norm reads", "2601.22966"),
    "mean": Variable("norm_read_mean", _READS, "1", "mean h that the norm reads", "2601.22966"),
    "hits": Variable("norm_read_hits", _READS, "token", "tokens whose largest |h| it is", "2601.22966"),
    "peak": Variable("norm_read_peak", ("read",), "1", "largest |x| / rms(x) that the norm reads", "2601.22966"),
    "tokens": Variable("norm_read_tokens", ("read",), "token", "tokens counted"),
    "weight": Variable("norm_weight", _READS, "1", "lambda of the norm", "2601.22966"),
    "centred": Variable("norm_centred", ("read",), "1", "whether the norm takes the mean away"),
    "biased": Variable("norm_biased", ("read",), "1", "whether the norm adds a bias"),
}


@dataclass(eq=False)
class _Sums:
    """Of one read, on its device: `[M]` float64 sums and counts; `peak` is a maximum."""

    total_abs: Tensor
    total: Tensor
    hits: Tensor
    peak: Tensor
    tokens: int = 0

    @classmethod
    def zero(cls, width: int, device: torch.device) -> _Sums:
        empty = torch.zeros(width, dtype=torch.float64, device=device)
        hits = torch.zeros(width, dtype=torch.long, device=device)
        return cls(empty, empty.clone(), hits, torch.zeros((), dtype=torch.float64, device=device))

    def add(self, h: Tensor) -> None:
        if not len(h):
            return
        size = h.abs()
        largest, where = size.max(1)
        self.total_abs += size.sum(0, dtype=torch.float64)
        self.total += h.sum(0, dtype=torch.float64)
        self.hits += torch.bincount(where, minlength=h.shape[1])
        rms = h.square().mean(1).sqrt()
        self.peak = torch.maximum(self.peak, (largest / rms).nan_to_num(0.0, 0.0).amax().double())
        self.tokens += len(h)


def norm_reads(
    scope: Scope,
    prompts: PromptSet,
    *,
    norms: Sequence[Norm] | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Return, for every norm that reads the residual stream, the size of each dimension of what it reads.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        norms: as `find_norms` gives them; None finds them.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        progress: called with tokens done and tokens in all.

    Returns:
        `norm_read_mean_abs`, `norm_read_mean`, `norm_read_hits`, `norm_weight` `[read, dimension]`;
        `norm_read_peak`, `norm_read_tokens`, `norm_centred`, `norm_biased` `[read]`. NaN where no token was counted.

    Raises:
        TaskError: empty or too long prompts.
        UnsupportedModelError: a block has no norm that reads the residual stream, or hidden states overflow.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [list(range(40))]})
        >>> reads = norm_reads(attnscope.load(device="cpu"), prompts)
        >>> dict(reads.sizes), int(reads.norm_read_tokens[0])
        ({'read': 17, 'dimension': 320}, 39)
    """
    norms = find_norms(scope) if norms is None else norms
    sums: dict[str, _Sums] = {}

    def see(tokens: Tokens, layer: int, site: Site, x: Tensor) -> None:
        name = label(site.partition("_")[0], layer)
        if name not in sums:
            sums[name] = _Sums.zero(x.shape[-1], x.device)
        sums[name].add(tokens.of(x))

    sites = norm_sites(norm_kinds(scope), "input")
    stream(scope, prompts, sites, see, implementation=implementation, batch_tokens=batch_tokens, progress=progress)
    ordered = [sums[norm.label] for norm in norms]
    tokens = np.array([one.tokens for one in ordered], float)
    counted = np.where(tokens > 0, tokens, np.nan)
    values = {
        "mean_abs": _stack([one.total_abs for one in ordered]) / counted[:, None],
        "mean": _stack([one.total for one in ordered]) / counted[:, None],
        "hits": _stack([one.hits for one in ordered]),
        "peak": np.where(tokens > 0, _stack([one.peak for one in ordered]), np.nan),
        "tokens": tokens,
        "weight": _stack([norm.weight for norm in norms]),
        "centred": np.array([norm.centred for norm in norms]),
        "biased": np.array([bool((norm.bias != 0).any()) for norm in norms]),
    }
    return statistics.dataset(
        scope.info,
        [(VARIABLES[name], value) for name, value in values.items()],
        coords={"read": [norm.label for norm in norms]},
    )


def _stack(rows: Sequence[Tensor]) -> np.ndarray:
    return np.stack([row.cpu().numpy() for row in rows])
