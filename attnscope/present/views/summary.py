"""The few facts that a reader wants first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.report import HeadReport
from ..wording import number
from .decode import decode_view
from .labels import label_counts
from .residual import ResidualNorms, outlier_rows, residual_norms
from .sinks import sink_rates, sink_table

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Card:
    """One fact: a short title, the value, what it means; plain text."""

    title: str
    value: str
    note: str


def summary_cards(report: HeadReport, statistics: Mapping[str, xr.Dataset]) -> list[Card]:
    """Return the facts that were measured; a fact that was not says so."""
    counts, n = label_counts(report), len(report.records)
    named = n - counts.get("unclassified", 0)
    cards = [Card("Labelled heads", f"{named:,}", f"of {n:,}; the others pass no rule")]
    cards.append(_sink_rate(report))
    cards.append(_sink_token(report))
    cards.append(_residual(statistics))
    cards.append(_outlier(report))
    plan = decode_view(report)
    cards.append(Card("KV cache to keep", f"{plan.kept:.0%}", f"at {plan.context:,} tokens, by the decode plan"))
    return cards


def _sink_rate(report: HeadReport) -> Card:
    rates = [rate for rate in sink_rates(report) if rate.percent is not None]
    if not rates:
        return Card("Sink rate", "—", "not measured")
    first = rates[0]
    return Card("Sink rate", f"{number(first.percent)}%", f"of heads, prompts of {first.length} tokens")


def _sink_token(report: HeadReport) -> Card:
    sinks = sink_table(report)
    if not sinks:
        return Card("Strongest sink", "—", "no token receives so much")
    top = sinks[0]
    layers = f"layer{'s' if len(top.layers) > 1 else ''} {top.layer_text}"
    return Card("Strongest sink", top.token, f"position {top.position}, {layers}")


def _residual(statistics: Mapping[str, xr.Dataset]) -> Card:
    norms = residual_norms(statistics)
    if not isinstance(norms, ResidualNorms):
        return Card("First token's norm", "—", "not measured")
    depth, ratio = norms.largest_ratio
    where = "at the embedding" if depth < 0 else f"after block {depth}"
    return Card("First token's norm", f"{number(ratio)} ×", f"the other tokens', {where}")


def _outlier(report: HeadReport) -> Card:
    rows = outlier_rows(report)
    if not rows:
        return Card("Residual sink", "none", "no dimension stands out")
    return Card("Residual sink", f"dim {rows[0].dimension}", f"{number(rows[0].ratio)} × the median dimension")
