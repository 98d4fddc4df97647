"""Frequency chunks of every head: the map of agreement, its course over wavelengths, and grids by head."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...core.frequency_report import FrequencyReport, HeadChunks
from .scores import Row, ScoreGrid


@dataclass(frozen=True)
class ChunkMap:
    """Agreement of every chunk of every head.

    Attributes:
        names: one a row, as `L0H3`.
        first_rows: layer → its first row.
        values: heads by chunks, 0..1; None where it was not measured.
        waves: what to say of each chunk's wavelength; one list a row.
        limits: chunk from which on wavelengths exceed the prompt, a row; None where they are unknown.
    """

    names: tuple[str, ...]
    first_rows: dict[int, int]
    values: tuple[Row, ...]
    waves: tuple[tuple[str, ...], ...]
    limits: tuple[float | None, ...]


@dataclass(frozen=True)
class ChunkCurve:
    """Agreement by chunk over the heads of some layers: mean and largest; and where wavelengths exceed the prompt."""

    name: str
    mean: Row
    largest: Row
    waves: tuple[str, ...]
    limit: float | None


def wave_name(tokens: float | None) -> str:
    """Return a wavelength in words.

    Example:
        >>> wave_name(6.283), wave_name(628318.7), wave_name(math.inf), wave_name(None)
        ('6.3 tokens', '628,319 tokens', 'never turns', 'wavelength unknown')
    """
    if tokens is None:
        return "wavelength unknown"
    if math.isinf(tokens):
        return "never turns"
    return f"{tokens:,.1f} tokens" if tokens < 100 else f"{tokens:,.0f} tokens"


def chunk_map(report: FrequencyReport) -> ChunkMap | None:
    """Return the map; None where no head was measured."""
    heads = _measured(report)
    if not heads:
        return None
    waves = _waves(report)
    first: dict[int, int] = {}
    for row, head in enumerate(heads):
        first.setdefault(head.layer, row)
    return ChunkMap(
        names=tuple(f"L{head.layer}H{head.head}" for head in heads),
        first_rows=first,
        values=tuple(head.agreement for head in heads),
        waves=tuple(tuple(map(wave_name, waves[head.layer])) for head in heads),
        limits=tuple(_limit(waves[head.layer], report.context) for head in heads),
    )


def chunk_curves(report: FrequencyReport) -> list[ChunkCurve]:
    """Return one curve for each group of layers that share their wavelengths; none where no head was measured."""
    curves = []
    for group in report.wavelengths:
        heads = [head for head in _measured(report) if head.layer in group.layers]
        if not heads:
            continue
        columns = [[v for v in column if v is not None] for column in zip(*(h.agreement for h in heads), strict=True)]
        curves.append(
            ChunkCurve(
                name="all layers" if len(report.wavelengths) == 1 else f"layers {', '.join(map(str, group.layers))}",
                mean=tuple(sum(column) / len(column) if column else None for column in columns),
                largest=tuple(max(column, default=None) for column in columns),
                waves=tuple(map(wave_name, group.tokens)),
                limit=_limit(group.tokens, report.context),
            )
        )
    return curves


def chunk_grids(report: FrequencyReport) -> list[ScoreGrid]:
    """Return layer × head grids: best chunk, chunks above the threshold, share of low frequencies."""
    if not _measured(report):
        return []
    best = {(h.layer, h.head): _best(h) for h in report.heads}
    many = {(h.layer, h.head): _many(h, report.dominant_threshold) for h in report.heads}
    low = {(h.layer, h.head): h.low_frequency_share for h in report.heads}
    return [
        _grid(report, "best_chunk", "Best chunk", "agreement of the head's best chunk", best),
        _grid(report, "dominant", "Dominant chunks", "share of its chunks above the threshold", many),
        _grid(report, "low_frequency", "Low-frequency share", "agreement above chance in slow chunks", low),
    ]


def _measured(report: FrequencyReport) -> list[HeadChunks]:
    return [head for head in report.heads if any(value is not None for value in head.agreement)]


def _waves(report: FrequencyReport) -> dict[int, tuple[float | None, ...]]:
    return {layer: group.tokens for group in report.wavelengths for layer in group.layers}


def _limit(tokens: tuple[float | None, ...], context: int) -> float | None:
    """Return the place between the last chunk that turns in the prompt and the next; wavelengths ascend."""
    if any(value is None for value in tokens):
        return None
    return sum(value is not None and value <= context for value in tokens) - 0.5


def _best(head: HeadChunks) -> float | None:
    return max((value for value in head.agreement if value is not None), default=None)


def _many(head: HeadChunks, threshold: float) -> float | None:
    values = [value for value in head.agreement if value is not None]
    return sum(value > threshold for value in values) / len(values) if values else None


def _grid(
    report: FrequencyReport, score: str, title: str, meaning: str, held: dict[tuple[int, int], float | None]
) -> ScoreGrid:
    info = report.model
    values = tuple(tuple(held.get((layer, head)) for head in range(info.n_heads)) for layer in info.attention_layers)
    nothing = tuple((None,) * info.n_heads for _ in info.attention_layers)
    return ScoreGrid(
        score=score,
        title=title,
        meaning=meaning,
        prompt_set="text",
        units="1",
        share=True,
        layers=info.attention_layers,
        n_heads=info.n_heads,
        values=values,
        low=nothing,
        high=nothing,
        reason=None if any(v is not None for row in values for v in row) else "wavelengths of these pairs are unknown",
    )
