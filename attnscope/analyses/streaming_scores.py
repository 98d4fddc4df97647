"""What each KV head is worth to an answer, averaged over prompts, with intervals."""

from __future__ import annotations

import xarray as xr

from ..core.errors import StatisticsError
from ..core.statistics import require
from .intervals import bootstrap_mean

SCORES = ("streaming_loss", "streaming_gain")


def streaming_scores(statistics: xr.Dataset, level: float = 0.95, seed: int = 0) -> xr.Dataset:
    """Return the means over prompts of `streaming_loss` and `streaming_gain`, and their bootstrap intervals.

    Args:
        statistics: of `engine.streaming_effects`, `[prompt, layer, kv_head]`, nats.
        level: coverage, 0..1.
        seed: of the bootstrap.

    Returns:
        Each score, and the same name with `_low` and `_high`: `[layer, kv_head]`; bounds are NaN for a single prompt.

    Raises:
        StatisticsError: the statistics lack a score or its dims.

    Example:
        >>> import numpy as np
        >>> table = xr.DataArray(np.ones((3, 1, 2)), dims=("prompt", "layer", "kv_head"))
        >>> found = streaming_scores(xr.Dataset({"streaming_loss": table, "streaming_gain": table}))
        >>> float(found.streaming_gain_low[0, 1])
        1.0
    """
    found: dict[str, xr.DataArray] = {}
    for name in SCORES:
        table = require(statistics, name)
        if set(table.dims) != {"prompt", "layer", "kv_head"}:
            raise StatisticsError(f"variable {name}", found=table.dims, expected="prompt, layer, kv_head")
        table = table.transpose("prompt", "layer", "kv_head")
        bounds = bootstrap_mean(table.values, level, seed=seed)
        found[name] = table.mean("prompt", keep_attrs=True)
        for end, values in zip(("low", "high"), bounds, strict=True):
            found[f"{name}_{end}"] = found[name].copy(data=values)
    return xr.Dataset(found, attrs=dict(statistics.attrs))
