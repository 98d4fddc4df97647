"""From what norms read to residual sink dimensions and their table (2601.22966)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..core.sink_report import NormRead, ResidualSinkDimension
from ..core.statistics import require

LEAST_RATIO = 5.0
LEAST_READS = 0.5


def read_scores(reads: xr.Dataset) -> np.ndarray:
    """Return mean |h_d| over the median dimension's, `[read, dimension]`, 0 or more."""
    mean_abs = require(reads, "norm_read_mean_abs").values
    median = np.median(mean_abs, axis=1, keepdims=True)
    return np.divide(mean_abs, median, out=np.zeros_like(mean_abs), where=median > 0)


def sink_dimensions(
    reads: xr.Dataset, *, least_ratio: float = LEAST_RATIO, least_reads: float = LEAST_READS
) -> tuple[int, ...]:
    """Return the dimensions that are large in most norm reads, largest first.

    Args:
        reads: as `engine.norm_reads` gives them.
        least_ratio: mean |h_d| is at least this many times the median dimension's ...
        least_reads: ... in at least this fraction of the reads, 0..1.

    Raises:
        StatisticsError: the statistics lack what norms read.

    Example:
        >>> size = np.ones((4, 6)); size[:3, 2] = 9
        >>> sink_dimensions(xr.Dataset({"norm_read_mean_abs": (("read", "dimension"), size)}))
        (2,)
    """
    scores = read_scores(reads)
    share = (scores >= least_ratio).mean(0)
    found = np.flatnonzero((share >= least_reads) & (share > 0))
    order = np.argsort(-np.median(scores[:, found], axis=0), kind="stable")
    return tuple(int(dimension) for dimension in found[order])


def rescaling_bound(largest: float, r: float, epsilon: float) -> float:
    """Return the bound on the rms of an RMSNorm's output: |lambda|_inf sqrt(1 - r² + epsilon² r²) (2601.22966).

    Concave in r, so that it also holds for means over tokens.

    Args:
        largest: |lambda|_inf.
        r: |h_S| / |h|, 0..1.
        epsilon: largest |lambda_d| over S, over |lambda|_inf, 0..1.

    Example:
        >>> round(rescaling_bound(2.0, 0.6, 0.0), 6)
        1.6
    """
    return largest * float(np.sqrt(max(0.0, 1 - r**2 * (1 - epsilon**2))))


def read_table(reads: xr.Dataset, shares: xr.Dataset, dimensions: Sequence[int]) -> tuple[NormRead, ...]:
    """Return the table of norms.

    Args:
        reads: as `engine.norm_reads` gives them.
        shares: as `engine.norm_shares` gives them, for these dimensions.
        dimensions: the sink dimensions S; may be empty.

    Raises:
        StatisticsError: a variable is missing.
    """
    mean_abs, weights = require(reads, "norm_read_mean_abs").values, np.abs(require(reads, "norm_weight").values)
    scores, hits = read_scores(reads), require(reads, "norm_read_hits").values
    tokens = require(reads, "norm_read_tokens").values
    table = []
    for i, name in enumerate(map(str, reads["read"].values)):
        kind, _, layer = name.partition(" ")
        argmax = int(mean_abs[i].argmax())
        largest, r = float(weights[i].max()), float(shares["norm_sink_share"][i])
        weight = float(weights[i, list(dimensions)].max() / largest) if dimensions else None
        plain = not bool(reads["norm_centred"][i]) and not bool(reads["norm_biased"][i])
        direct = float(shares["norm_direct_share"][i])
        table.append(
            NormRead(
                read=kind,
                layer=int(layer) if layer else _depth(reads),
                score=float(scores[i].max()),
                argmax=argmax,
                argmax_hit=float(hits[i, argmax] / tokens[i]),
                peak=float(reads["norm_read_peak"][i]),
                r=r,
                weight=weight,
                denominator=float(shares["norm_denominator"][i]),
                direct=None if np.isnan(direct) else direct,
                rms=float(shares["norm_output_rms"][i]),
                bound=rescaling_bound(largest, r, weight or 0.0) if plain else None,
            )
        )
    return tuple(table)


def dimension_table(
    reads: xr.Dataset, shares: xr.Dataset, dimensions: Sequence[int]
) -> tuple[ResidualSinkDimension, ...]:
    """Return the table of sink dimensions; arguments as in `read_table`.

    Raises:
        StatisticsError: a variable is missing.
    """
    mean_abs, scores = require(reads, "norm_read_mean_abs").values, read_scores(reads)
    weights = np.abs(require(reads, "norm_weight").values)
    relative = weights / weights.max(1, keepdims=True)
    writes = require(shares, "sink_dimension_writes")
    writers = list(map(str, writes["module"].values))
    return tuple(
        ResidualSinkDimension(
            dimension=dimension,
            score=float(np.median(scores[:, dimension])),
            reads=int((mean_abs.argmax(1) == dimension).sum()),
            mean_abs=float(mean_abs[:, dimension].mean()),
            writer=writers[int(np.abs(writes.values[:, i]).argmax())] if writers else None,
            weight=float(np.median(relative[:, dimension])),
        )
        for i, dimension in enumerate(dimensions)
    )


def _depth(reads: xr.Dataset) -> int:
    return sum(str(name).startswith("attention") for name in reads["read"].values)
