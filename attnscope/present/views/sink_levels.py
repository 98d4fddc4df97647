"""Sink levels: sinks that start at one block and live equally long."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.sink_report import SinkLevel, SinkReport
from ..tokens import visible
from .sink_map import by_block


@dataclass(frozen=True)
class LevelRow:
    """One level.

    Attributes:
        index: its place in the report's levels.
        blocks: first and last block whose output is a sink.
        tokens: most frequent tokens, made visible, with their counts.
        norm: median l2 norm.
        shares: attention share a sink, mean, one a block, 0..1; None where it was not measured.
    """

    index: int
    kind: str
    first_layer: int
    lifetime: int
    n_sinks: int
    n_prompts: int
    tokens: tuple[tuple[str, int], ...]
    norm: float
    shares: tuple[float | None, ...]

    @property
    def blocks(self) -> str:
        """The blocks over which it lives, first to last."""
        last = self.first_layer + self.lifetime - 1
        return str(last) if self.lifetime == 1 else f"{self.first_layer}–{last}"

    @property
    def name(self) -> str:
        """What it is called in charts and sentences."""
        return f"{self.kind}, block{'s' if self.lifetime > 1 else ''} {self.blocks}"

    @property
    def measured(self) -> bool:
        """Whether attention on it was measured in any block."""
        return any(share is not None for share in self.shares)


def level_rows(report: SinkReport) -> list[LevelRow]:
    """Return every level in the report's order."""
    return [_row(report, index, level) for index, level in enumerate(report.levels)]


def _row(report: SinkReport, index: int, level: SinkLevel) -> LevelRow:
    return LevelRow(
        index=index,
        kind=level.kind,
        first_layer=level.first_layer,
        lifetime=level.lifetime,
        n_sinks=level.n_sinks,
        n_prompts=level.n_prompts,
        tokens=tuple((visible(token), count) for token, count in level.tokens),
        norm=level.norm,
        shares=by_block(report.model, level.share_by_layer),
    )
