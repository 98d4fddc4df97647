"""The sinks of one prompt, layer by position: what attention gives them, and where the residual stream shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.model_info import ModelInfo
from ...core.report import Missing
from ...core.sink_report import AttentionEvidence, ResidualEvidence, Sink, SinkReport
from ..tokens import visible


@dataclass(frozen=True)
class SinkColumn:
    """One sink.

    Attributes:
        token: made visible, not escaped for any markup.
        shares: attention share, 0..1, one a block; None where it was not measured.
        residual_layers: blocks whose output points along the primary direction.
        reason: why attention says nothing of it; None where it was measured.
    """

    position: int
    token: str
    kind: str
    shares: tuple[float | None, ...]
    residual_layers: tuple[int, ...]
    reason: str | None = None


@dataclass(frozen=True)
class SinkMap:
    """The sinks of one prompt, in order of position; `hidden` more were left out."""

    prompt: int
    n_layers: int
    columns: tuple[SinkColumn, ...]
    hidden: int = 0


def sink_maps(report: SinkReport, limit: int = 12, columns: int = 40) -> list[SinkMap]:
    """Return maps of the prompts with the most sinks, the fullest first.

    Args:
        report: the report.
        limit: maps at most.
        columns: sinks of one prompt at most, the first ones.
    """
    counts = Counter(sink.prompt for sink in report.sinks)
    fullest = sorted(counts, key=lambda prompt: (-counts[prompt], prompt))[:limit]
    return [_map(report, prompt, columns) for prompt in fullest]


def by_block(info: ModelInfo, values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Return one value a block; blocks without softmax attention get None where `values` has no entry for them."""
    if len(values) == info.n_layers:
        return tuple(values)
    found = dict(zip(info.attention_layers, values, strict=False))
    return tuple(found.get(layer) for layer in range(info.n_layers))


def _map(report: SinkReport, prompt: int, most: int) -> SinkMap:
    held = sorted((sink for sink in report.sinks if sink.prompt == prompt), key=lambda sink: sink.position)
    shown = tuple(_column(report.model, sink) for sink in held[:most])
    return SinkMap(prompt, report.model.n_layers, shown, max(0, len(held) - most))


def _column(info: ModelInfo, sink: Sink) -> SinkColumn:
    shares: tuple[float | None, ...] = (None,) * info.n_layers
    if isinstance(sink.attention, AttentionEvidence):
        shares = by_block(info, sink.attention.share_by_layer)
    layers: tuple[int, ...] = ()
    if isinstance(sink.residual, ResidualEvidence):
        first = sink.residual.first_layer
        layers = tuple(range(first, min(info.n_layers, first + sink.residual.lifetime)))
    reason = sink.attention.reason if isinstance(sink.attention, Missing) else None
    return SinkColumn(sink.position, visible(sink.token), sink.kind, shares, layers, reason)
