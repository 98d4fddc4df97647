"""Sink tokens and the sink rate by prompt length."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ...core.report import HeadReport, Measured, SinkToken
from ..tokens import visible
from ..wording import runs


@dataclass(frozen=True)
class SinkRow:
    """A token at a position that is a sink, over all layers where it is one.

    Attributes:
        token: made visible, not escaped for any markup.
        prompts: in the layer where it is a sink most often.
        of_prompts: prompts of the set; None where the report does not say.
        received: mean attention a later query, averaged over heads, weighted by prompts.
    """

    token: str
    token_id: int
    position: int
    layers: tuple[int, ...]
    prompts: int
    of_prompts: int | None
    received: float

    @property
    def layer_text(self) -> str:
        """Layers with runs joined."""
        return runs(list(self.layers))


@dataclass(frozen=True)
class SinkRate:
    """Percent of heads for which the first token is a sink, at one prompt length; value None where not measured."""

    length: int
    percent: float | None
    low: float | None
    high: float | None
    n: int | None
    reason: str | None = None


def sink_table(report: HeadReport, limit: int | None = None) -> list[SinkRow]:
    """Return sink tokens, the one found in most layers and prompts first."""
    of_prompts = next((item.n_prompts for item in report.provenance.prompt_sets if item.name == "text"), None)
    groups: dict[tuple[int, int], list[SinkToken]] = defaultdict(list)
    for sink in report.sinks:
        groups[sink.position, sink.token_id].append(sink)
    rows = [
        SinkRow(
            token=visible(items[0].token),
            token_id=token_id,
            position=position,
            layers=tuple(sorted({item.layer for item in items})),
            prompts=max(item.prompts for item in items),
            of_prompts=of_prompts,
            received=float(np.average([i.received for i in items], weights=[i.prompts for i in items])),
        )
        for (position, token_id), items in groups.items()
    ]
    rows.sort(key=lambda row: (-row.prompts * len(row.layers), -row.received, row.position, row.token_id))
    return rows[:limit]


def sink_rates(report: HeadReport) -> list[SinkRate]:
    """Return the sink rate by prompt length, shortest first."""
    rates = []
    for length, item in sorted(report.sink_rate.items()):
        if not isinstance(item, Measured):
            rates.append(SinkRate(length, None, None, None, None, item.reason))
            continue
        interval = item.interval
        low, high = (interval.low, interval.high) if interval else (None, None)
        rates.append(SinkRate(length, item.value, low, high, item.n))
    return rates
