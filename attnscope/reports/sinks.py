"""Build the sinks of a SinkReport: residual and attention evidence joined per position, levels, writers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..analyses.intervals import bootstrap_mean
from ..analyses.residual_runs import Run, Thresholds
from ..analyses.sink_writers import Written
from ..core.model_info import ModelInfo
from ..core.report import Interval, Missing
from ..core.sink_report import (
    AttentionEvidence,
    Contribution,
    Estimate,
    EstimateOrMissing,
    HeadService,
    ResidualEvidence,
    Sink,
    SinkKind,
    SinkLevel,
    Weakening,
    Writer,
)

MOST_TOKENS = 8


@dataclass(frozen=True)
class Evidence:
    """One run with its direction and its writer.

    Attributes:
        run: where and how long.
        cosine: mean |cosine| to the primary direction over the lifetime.
        writer: who wrote it, or None.
        written: contributions of all modules.
    """

    run: Run
    cosine: float
    writer: Writer | None = None
    written: tuple[Written, ...] = ()


def attention_sinks(trace: xr.Dataset, thresholds: Thresholds) -> list[tuple[int, int]]:
    """Return every (prompt, position) whose received attention exceeds the thresholds in some layer."""
    share, norm = trace.received_share.values, trace.residual_norm_at.values[:, 0]
    least = np.full((share.shape[0], share.shape[2]), thresholds.share)
    if thresholds.mode == "relative":
        for prompt in range(len(norm)):
            length = int((~np.isnan(norm[prompt])).sum())
            uniform = uniform_share(length)
            least[prompt, :length] = np.maximum(least[prompt, :length], thresholds.above_uniform * uniform)
    with np.errstate(invalid="ignore"):
        return [(int(p), int(t)) for p, t in zip(*np.nonzero((share > least[:, None]).any(1)), strict=True)]


def uniform_share(length: int) -> np.ndarray:
    """Return what each key of a causal prompt receives a query, `[length]`, if attention is uniform.

    Example:
        >>> uniform_share(2)
        array([0.75, 0.5 ])
    """
    rows = 1 / np.arange(1, length + 1)
    return rows[::-1].cumsum()[::-1] / np.arange(length, 0, -1)


def joined(
    trace: xr.Dataset,
    evidence: Sequence[Evidence],
    untold: dict[int, str],
    thresholds: Thresholds,
    tokens: Sequence[Sequence[int]],
    decode: Callable[[int], str],
) -> tuple[tuple[Sink, ...], tuple[SinkLevel, ...]]:
    """Return all sinks in order of prompt and position, and their levels, the most common first."""
    share, heads = trace.received_share.values, trace.sink_heads_at.values
    ids = level_ids([one.run for one in evidence])
    sinks: list[tuple[int, int, SinkKind, int | None, ResidualEvidence | Missing]] = []
    for one in evidence:
        run = one.run
        residual = ResidualEvidence(
            first_layer=run.first,
            lifetime=run.lifetime,
            norm=run.norm,
            norm_ratio=run.ratio,
            cosine=one.cosine,
            writer=one.writer,
            contributions=tuple(
                Contribution(module=w.module, layer=w.layer, along=w.along, share=w.share) for w in one.written
            ),
        )
        sinks.append((run.prompt, run.position, run.kind, ids[run.first, run.lifetime], residual))
    known = {(run.prompt, run.position) for run in (one.run for one in evidence)}
    for prompt, position in attention_sinks(trace, thresholds):
        if (prompt, position) not in known:
            reason = untold.get(prompt, "its residual stream looks like that of other tokens")
            sinks.append((prompt, position, "attention only", None, Missing(reason=reason)))
    made = tuple(
        Sink(
            prompt=prompt,
            position=position,
            token=decode(int(tokens[prompt][position])),
            token_id=int(tokens[prompt][position]),
            kind=kind,
            level=level,
            residual=residual,
            attention=_attention(share[prompt, :, position], float(heads[prompt, position]), trace.layer.values),
        )
        for prompt, position, kind, level, residual in sorted(sinks, key=lambda s: (s[0], s[1], s[3] or 0))
    )
    return made, _levels(made, ids, len(trace.layer))


def level_ids(runs: Sequence[Run]) -> dict[tuple[int, int], int]:
    """Return (first, lifetime) → index of the level; the most common first."""
    counts = Counter((run.first, run.lifetime) for run in runs)
    return {level: index for index, (level, _) in enumerate(sorted(counts.items(), key=lambda c: (-c[1], c[0])))}


def _attention(share: np.ndarray, heads: float, layers: np.ndarray) -> AttentionEvidence | Missing:
    if np.isnan(share).all():
        return Missing(reason="too few later queries see it")
    best = int(np.nanargmax(share))
    return AttentionEvidence(
        share=float(share[best]),
        layer=int(layers[best]),
        share_by_layer=tuple(None if np.isnan(value) else float(value) for value in share),
        sink_heads=heads,
    )


def _levels(sinks: Sequence[Sink], ids: dict[tuple[int, int], int], n_layers: int) -> tuple[SinkLevel, ...]:
    levels = []
    for (first, lifetime), index in ids.items():
        own = [sink for sink in sinks if sink.level == index]
        by_layer = [
            [
                value
                for sink in own
                if isinstance(sink.attention, AttentionEvidence)
                and (value := sink.attention.share_by_layer[layer]) is not None
            ]
            for layer in range(n_layers)
        ]
        levels.append(
            SinkLevel(
                first_layer=first,
                lifetime=lifetime,
                kind=Counter(sink.kind for sink in own).most_common(1)[0][0],
                n_sinks=len(own),
                n_prompts=len({sink.prompt for sink in own}),
                tokens=tuple(Counter(sink.token for sink in own).most_common(MOST_TOKENS)),
                norm=float(np.median([s.residual.norm for s in own if isinstance(s.residual, ResidualEvidence)])),
                share_by_layer=tuple(float(np.mean(values)) if values else None for values in by_layer),
            )
        )
    return tuple(levels)


def estimate(values: np.ndarray, reason: str) -> EstimateOrMissing:
    """Return the mean of the finite values with its bootstrap interval, or Missing with the reason.

    Args:
        values: `[n]`, NaN where missing.
        reason: given where nothing was measured.
    """
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return Missing(reason=reason)
    low, high = bootstrap_mean(kept)
    interval = None if np.isnan(low) else Interval(low=float(low), high=float(high))
    return Estimate(value=float(kept.mean()), n=len(kept), interval=interval)


def head_services(info: ModelInfo, used: xr.Dataset, present: Mapping[str, Sequence[bool]]) -> tuple[HeadService, ...]:
    """Return every head's use of sinks.

    Args:
        info: the model.
        used: of `engine.sink_heads.sink_shares`.
        present: for `primary` and `secondary`, whether each prompt has such a sink.
    """
    services = []
    for layer, head in info.heads:
        own = used.sel(layer=layer, head=head)
        share = {
            kind: estimate(
                np.where(has, own.sink_attention.sel(sink_kind=kind), np.nan), f"no prompt has a {kind} sink"
            )
            for kind, has in present.items()
        }
        dormant = own.dormant.values
        services.append(
            HeadService(
                layer=layer,
                head=head,
                primary_share=share["primary"],
                secondary_share=share["secondary"],
                dormant=estimate(dormant, "no prompt has a second token"),
                dormant_by_prompt=tuple(None if np.isnan(value) else float(value) for value in dormant),
            )
        )
    return tuple(services)


def weakening(trace: xr.Dataset, sinks: Sequence[Sink]) -> tuple[Weakening, ...]:
    """Return the primary's attention share by layer, in prompts with secondary sinks and in prompts without.

    A secondary sink counts in the layers whose input it marks.
    """
    share = trace.received_share.values
    primary = {sink.prompt: sink.position for sink in sinks if sink.kind == "primary"}
    if not primary or not any(sink.kind == "secondary" for sink in sinks):
        return ()
    rows = []
    for row, layer in enumerate(trace.layer.values.tolist()):
        alive = {
            sink.prompt
            for sink in sinks
            if sink.kind == "secondary"
            and isinstance(sink.residual, ResidualEvidence)
            and sink.residual.first_layer < layer <= sink.residual.first_layer + sink.residual.lifetime
        }
        values = {prompt: share[prompt, row, position] for prompt, position in primary.items()}
        groups = [
            np.array([value for prompt, value in values.items() if (prompt in alive) == with_])
            for with_ in (True, False)
        ]
        rows.append(
            Weakening(
                layer=layer,
                with_secondary=estimate(groups[0], "no prompt has a secondary sink alive here"),
                without_secondary=estimate(groups[1], "every prompt has a secondary sink alive here"),
            )
        )
    return tuple(rows)
