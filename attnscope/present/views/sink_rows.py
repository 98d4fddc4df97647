"""Every sink as one row of words and numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.sink_report import AttentionEvidence, ResidualEvidence, Sink, SinkReport
from ..tokens import visible
from .sink_writes import module_name

KINDS = ("primary", "secondary", "attention only", "short-lived")


@dataclass(frozen=True)
class SinkEntry:
    """One sink; None where it was not measured. `token` is made visible, not escaped for any markup."""

    prompt: int
    position: int
    token: str
    kind: str
    first_layer: int | None
    lifetime: int | None
    norm_ratio: float | None
    share: float | None
    share_layer: int | None
    sink_heads: float | None
    writer: str | None


@dataclass(frozen=True)
class SinkGroup:
    """Sinks of one token, kind, first block and lifetime, over all prompts; numbers are means over those measured."""

    token: str
    kind: str
    n_sinks: int
    positions: tuple[int, ...]
    first_layer: int | None
    lifetime: int | None
    norm_ratio: float | None
    share: float | None
    writer: str | None

    @property
    def position_text(self) -> str:
        """Up to three positions."""
        more = f", … {len(self.positions) - 3} more" if len(self.positions) > 3 else ""
        return ", ".join(f"{position:,}" for position in self.positions[:3]) + more


def sink_entries(report: SinkReport) -> list[SinkEntry]:
    """Return every sink by kind, prompt and position."""
    return sorted(map(_entry, report.sinks), key=lambda row: (KINDS.index(row.kind), row.prompt, row.position))


def sink_groups(report: SinkReport) -> list[SinkGroup]:
    """Return sinks joined over prompts, the commonest of each kind first."""
    held: dict[tuple[str, str, int | None, int | None], list[SinkEntry]] = {}
    for row in sink_entries(report):
        held.setdefault((row.token, row.kind, row.first_layer, row.lifetime), []).append(row)
    groups = [
        SinkGroup(
            token=token,
            kind=kind,
            n_sinks=len(rows),
            positions=tuple(sorted({row.position for row in rows})),
            first_layer=first,
            lifetime=lifetime,
            norm_ratio=_mean([row.norm_ratio for row in rows]),
            share=_mean([row.share for row in rows]),
            writer=_commonest([row.writer for row in rows]),
        )
        for (token, kind, first, lifetime), rows in held.items()
    ]
    return sorted(groups, key=lambda group: (KINDS.index(group.kind), -group.n_sinks, group.token))


def _entry(sink: Sink) -> SinkEntry:
    residual = sink.residual if isinstance(sink.residual, ResidualEvidence) else None
    attention = sink.attention if isinstance(sink.attention, AttentionEvidence) else None
    writer = residual.writer if residual else None
    return SinkEntry(
        prompt=sink.prompt,
        position=sink.position,
        token=visible(sink.token),
        kind=sink.kind,
        first_layer=residual.first_layer if residual else None,
        lifetime=residual.lifetime if residual else None,
        norm_ratio=residual.norm_ratio if residual else None,
        share=attention.share if attention else None,
        share_layer=attention.layer if attention else None,
        sink_heads=attention.sink_heads if attention else None,
        writer=module_name(writer.module, writer.layer) if writer else None,
    )


def _mean(values: list[float | None]) -> float | None:
    held = [value for value in values if value is not None]
    return sum(held) / len(held) if held else None


def _commonest(names: list[str | None]) -> str | None:
    held = [name for name in names if name is not None]
    return max(sorted(set(held)), key=held.count) if held else None
