"""Where the residual stream says that a position is a sink: first block, lifetime, level (2512.22213)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from ..core.errors import StatisticsError
from ..core.statistics import require

Mode = Literal["relative", "paper"]


@dataclass(frozen=True)
class Thresholds:
    """What counts as a sink.

    Attributes:
        mode: `relative` asks for a norm far above the median token's, whatever its direction was before; `paper` asks
            for the direction of the primary sink alone, as 2512.22213's code does.
        norm_ratio: relative: residual norm over the median token's of the same block, `>=`.
        cosine: |cosine| to the primary direction, strict `>`.
        shortest: relative: a sink lives for this share of the blocks, `>=` (4 of 48 in the paper).
        primary_margin: paper: a lifetime of at least L minus this many blocks is primary.
        noise: paper: a lifetime of at most this many blocks is noise.
        share: attention received a query, mean over heads, above which a position is a sink of its layer, strict `>`
            (2406.15765).
        above_uniform: relative: a position's share is also this many times what uniform attention would give it,
            which is much in a short prompt, strict `>`.
    """

    mode: Mode = "relative"
    norm_ratio: float = 3.0
    cosine: float = 0.9
    shortest: float = 4 / 48
    primary_margin: int = 15
    noise: int = 4
    share: float = 0.1
    above_uniform: float = 3.0


RELATIVE = Thresholds()


@dataclass(frozen=True)
class Run:
    """One position that is a sink in the residual stream."""

    prompt: int
    position: int
    first: int
    lifetime: int
    norm: float
    ratio: float
    kind: Literal["primary", "secondary", "short-lived"] = "secondary"


def runs(trace: xr.Dataset, thresholds: Thresholds = RELATIVE) -> tuple[list[Run], dict[int, str]]:
    """Return every position whose residual stream says sink, and the prompts that cannot be told, with the reason.

    Args:
        trace: with `residual_norm_at` (prompt, block, position) and, in paper mode, `anchor_cosine`.
        thresholds: what counts.

    Raises:
        StatisticsError: a variable is missing, or an unknown mode.

    Example:
        >>> norm = np.ones((1, 4, 9)); norm[0, 1:3, 0] = 50
        >>> data = xr.Dataset({"residual_norm_at": (("prompt", "block", "position"), norm)})
        >>> found, _ = runs(data)
        >>> [(run.position, run.first, run.lifetime, run.kind) for run in found]
        [(0, 1, 2, 'primary')]
    """
    if thresholds.mode not in ("relative", "paper"):
        raise StatisticsError("mode of a sink analysis", found=thresholds.mode, expected="'relative' or 'paper'")
    norm = require(trace, "residual_norm_at").values
    found: list[Run] = []
    untold: dict[int, str] = {}
    for prompt in range(norm.shape[0]):
        own = norm[prompt][:, ~np.isnan(norm[prompt, 0])].astype(np.float64)
        of = _relative if thresholds.mode == "relative" else _paper
        cosine = trace.anchor_cosine.values[prompt][:, :, : own.shape[1]] if thresholds.mode == "paper" else None
        result = of(prompt, own, cosine, thresholds)
        if isinstance(result, str):
            untold[prompt] = result
        elif len(result) * 2 > max(own.shape[1], 4):
            untold[prompt] = f"{len(result)} of {own.shape[1]} positions look alike, so none of them stands out"
        else:
            found += result
    return found, untold


def anchor(norm: np.ndarray) -> int:
    """Return which of the first three positions has the largest mean norm over blocks (2512.22213)."""
    return int(np.argmax(norm[:, :3].mean(0)))


def _relative(prompt: int, norm: np.ndarray, _cosine: np.ndarray | None, t: Thresholds) -> list[Run] | str:
    blocks, tokens = norm.shape
    if tokens < 4:
        return f"{tokens} tokens, too few for a median token"
    ratio = norm / np.median(norm, axis=1, keepdims=True)
    found = []
    for position in np.flatnonzero((ratio >= t.norm_ratio).any(0)):
        for first, stop in _stretches(ratio[:, position] >= t.norm_ratio):
            where = slice(first, stop)
            found.append(
                Run(
                    prompt,
                    int(position),
                    first,
                    stop - first,
                    float(np.median(norm[where, position])),
                    float(np.median(ratio[where, position])),
                )
            )
    primary = [run for run in found if run.position < 3]
    strongest = max(primary, key=lambda run: (run.lifetime, run.ratio), default=None)
    shortest = max(1, round(t.shortest * blocks))
    return [_named(run, strongest, shortest) for run in found]


def _named(run: Run, primary: Run | None, shortest: int) -> Run:
    kind: Literal["primary", "secondary", "short-lived"] = "secondary"
    if primary is not None and (run.first, run.first + run.lifetime) == (
        primary.first,
        primary.first + primary.lifetime,
    ):
        kind = "primary"
    elif run.lifetime < shortest:
        kind = "short-lived"
    return Run(run.prompt, run.position, run.first, run.lifetime, run.norm, run.ratio, kind)


def _paper(prompt: int, norm: np.ndarray, cosine: np.ndarray | None, t: Thresholds) -> list[Run] | str:
    blocks, tokens = norm.shape
    if blocks < 3:
        return f"{blocks} blocks, too few for a rise and a fall of the norm"
    assert cosine is not None
    b = anchor(norm)
    change = np.diff(norm[:, b])
    first = int(np.argmax(change)) + 1
    stop = int(np.argmin(change[first:])) + first + 1 if first < blocks - 1 else blocks
    median = np.median(norm, axis=1)

    def run(position: int, where: slice, kind: Literal["primary", "secondary", "short-lived"]) -> Run:
        own = norm[where, position]
        return Run(
            prompt,
            position,
            where.start,
            where.stop - where.start,
            float(np.median(own)),
            float(np.median(own / median[where])),
            kind,
        )

    found = [run(b, slice(first, stop), "primary")]
    along = np.abs(cosine[b]) > t.cosine
    for position in range(b + 1, tokens):
        inside = along[:, position].copy()
        inside[:first], inside[stop:] = False, False
        stretches = list(_stretches(inside))
        if stretches:
            begin, end = max(stretches, key=lambda pair: pair[1] - pair[0])
            lifetime = end - begin
            primary = lifetime >= blocks - t.primary_margin > t.noise
            kind: Literal["primary", "secondary", "short-lived"] = "primary" if primary else "secondary"
            found.append(run(position, slice(begin, end), kind if primary or lifetime > t.noise else "short-lived"))
    return found


def _stretches(inside: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
