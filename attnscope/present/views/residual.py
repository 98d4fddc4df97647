"""The residual stream: norms by block, and dimensions that stand out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...core.report import HeadReport, Missing

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class ResidualNorms:
    """ℓ₂ norms by depth, mean over prompts; depth −1 is the input of block 0, then the output of each block.

    Attributes:
        first: of the first token.
        others: mean of the other tokens.
    """

    depths: tuple[int, ...]
    first: tuple[float, ...]
    others: tuple[float, ...]
    prompt_set: str

    @property
    def largest_ratio(self) -> tuple[int, float]:
        """Depth where the first token stands out most, and by what factor."""
        ratios = np.divide(self.first, self.others)
        where = int(np.nanargmax(ratios))
        return self.depths[where], float(ratios[where])


@dataclass(frozen=True)
class OutlierRow:
    """A residual-stream dimension that is large on most tokens; `ratio` is to the median dimension."""

    dimension: int
    mean_abs: float
    ratio: float


def residual_norms(statistics: Mapping[str, xr.Dataset], prompt_set: str = "text") -> ResidualNorms | Missing:
    """Return norms by depth, or why there are none."""
    data = statistics.get(prompt_set)
    if data is None or "residual_norm_first" not in data or "residual_norm_others" not in data:
        return Missing(reason=f"no residual norms were collected on {prompt_set!r} (collector residual_norm)")
    curves = []
    for name in ("residual_norm_first", "residual_norm_others"):
        norms = data[name].mean("prompt", skipna=True) if "prompt" in data[name].dims else data[name]
        start = norms.sel(site="block_input").isel(block=0)
        curves.append((float(start), *map(float, norms.sel(site="block_output").values)))
    if np.isnan(curves).all():
        return Missing(reason="residual norms are missing in every block")
    return ResidualNorms((-1, *map(int, data.block.values)), curves[0], curves[1], prompt_set)


def outlier_rows(report: HeadReport, limit: int | None = None) -> list[OutlierRow]:
    """Return outlier dimensions, the largest first."""
    rows = [OutlierRow(d.dimension, d.mean_abs, d.ratio) for d in report.outlier_dimensions]
    return sorted(rows, key=lambda row: -row.mean_abs)[:limit]
