"""Norm and direction of the residual stream through the model: each level of sinks beside all other tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..core.sink_report import ResidualTrace, Sink


def residual_traces(trace: xr.Dataset, sinks: Sequence[Sink]) -> tuple[ResidualTrace, ...]:
    """Return one trace a level, in order, and one of the tokens that are no sinks.

    Args:
        trace: of `engine.sink_trace.trace`.
        sinks: of the report.
    """
    norm = trace.residual_norm_at.values
    towards = _towards_primary(trace, sinks)
    found = []
    for level in sorted({sink.level for sink in sinks if sink.level is not None}):
        at = np.zeros(norm.shape[::2], dtype=bool)
        for sink in sinks:
            if sink.level == level:
                at[sink.prompt, sink.position] = True
        found.append(_trace(level, norm, towards, at))
    others = ~np.isnan(norm[:, 0])
    for sink in sinks:
        others[sink.prompt, sink.position] = False
    if others.any():
        found.append(_trace(None, norm, towards, others))
    return tuple(found)


def _towards_primary(trace: xr.Dataset, sinks: Sequence[Sink]) -> np.ndarray:
    """Return |cosine| to the prompt's primary sink `[P, L, T]`, NaN in prompts without one."""
    cosine = trace.anchor_cosine.values
    towards = np.full(trace.residual_norm_at.shape, np.nan, dtype=np.float32)
    strongest: dict[int, Sink] = {}
    for sink in sinks:
        known = strongest.get(sink.prompt)
        if (
            sink.kind == "primary"
            and sink.position < cosine.shape[1]
            and (known is None or _ratio(sink) > _ratio(known))
        ):
            strongest[sink.prompt] = sink
    for prompt, sink in strongest.items():
        towards[prompt] = np.abs(cosine[prompt, sink.position])
    return towards


def _ratio(sink: Sink) -> float:
    return getattr(sink.residual, "norm_ratio", 0.0)


def _trace(level: int | None, norm: np.ndarray, towards: np.ndarray, at: np.ndarray) -> ResidualTrace:
    prompts, positions = np.nonzero(at)
    norms, cosines = norm[prompts, :, positions], towards[prompts, :, positions]
    told = cosines[~np.isnan(cosines).any(1)]
    return ResidualTrace(
        level=level,
        n=len(norms),
        norm=tuple(float(value) for value in np.median(norms, axis=0)),
        cosine=tuple(float(v) for v in np.median(told, axis=0)) if len(told) else (None,) * norms.shape[1],
    )
