"""Sink tokens and outlier dimensions, from statistics that were collected."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..core.statistics import require


@dataclass(frozen=True)
class FoundSink:
    """A (layer, position, token) that is a sink in `prompts` prompts, and the mean attention that it receives."""

    layer: int
    position: int
    token_id: int
    prompts: int
    received: float


def sink_tokens(statistics: xr.Dataset) -> list[FoundSink]:
    """Return every sink of every layer, the most widely found first (2406.15765).

    Args:
        statistics: with `sink_position`, `sink_token`, `sink_received`, dims (prompt, layer, rank).

    Raises:
        StatisticsError: a variable is missing.
    """
    position, token = require(statistics, "sink_position"), require(statistics, "sink_token")
    received = require(statistics, "sink_received")
    found: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    layers = position.layer.values
    for p, row, rank in zip(*np.nonzero(~np.isnan(position.values)), strict=True):
        key = (int(layers[row]), int(position.values[p, row, rank]), int(token.values[p, row, rank]))
        found[key].append(float(received.values[p, row, rank]))
    sinks = [FoundSink(*key, len(values), float(np.mean(values))) for key, values in found.items()]
    return sorted(sinks, key=lambda s: (-s.prompts, s.layer, -s.received, s.position))


def outlier_dimensions(statistics: xr.Dataset, least_ratio: float = 5.0) -> list[tuple[int, float, float]]:
    """Return (dimension, mean |x| over depth, ratio to the median dimension) of residual sinks, largest first.

    The score of 2601.22966 with the first token left out: H_avg of each dimension over that of the median dimension.

    Args:
        statistics: with `residual_mean_abs`, dims (block, dimension).
        least_ratio: smaller ratios are left out.

    Example:
        >>> data = xr.Dataset({"residual_mean_abs": (("block", "dimension"), [[1.0, 20.0, 1.0]])})
        >>> outlier_dimensions(data)
        [(1, 20.0, 20.0)]
    """
    mean = require(statistics, "residual_mean_abs").mean("block").values
    median = float(np.median(mean))
    order = np.argsort(-mean)
    return [
        (int(d), float(mean[d]), float(mean[d] / median))
        for d in order
        if median > 0 and mean[d] / median >= least_ratio
    ]
