"""A sink report in a few sentences."""

from __future__ import annotations

from collections import Counter

from ...core.report import Missing
from ...core.sink_report import AttentionEvidence, SinkReport
from ..wording import number
from .residual_sinks import INTERVENTIONS, residual_sink_view
from .sink_levels import level_rows
from .sink_writes import write_views, writer_views

COMMAND = "`attnscope sinks` measures it unless --no-interventions is given"


def sink_headline(report: SinkReport) -> str:
    """Return one sentence: how many sinks of each kind in how many prompts.

    Example:
        `39 sinks in 16 prompts: 16 primary, 16 secondary, 3 attention only, 4 short-lived`
    """
    counts: Counter[str] = Counter(sink.kind for sink in report.sinks)
    prompts = f"{report.n_prompts:,} prompt{'s' if report.n_prompts != 1 else ''}"
    if not counts:
        return f"No sinks in {prompts}"
    kinds = ("primary", "secondary", "attention only", "short-lived")
    words = ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds if counts[kind])
    total = len(report.sinks)
    return f"{total:,} sink{'s' if total != 1 else ''} in {prompts}: {words}"


def sink_sentences(report: SinkReport) -> list[str]:
    """Return what was found, in plain words, the most important first; plain text."""
    found = [_primary(report), _levels(report), _writers(report), *_tests(report), *_residual(report)]
    return [sentence for sentence in found if sentence]


def _primary(report: SinkReport) -> str:
    if report.primary_layers is None:
        return "No position is a sink in the residual stream of most prompts."
    first, lifetime = report.primary_layers
    peaks = [s.attention.share for s in report.of_kind("primary") if isinstance(s.attention, AttentionEvidence)]
    share = (
        f" At its strongest layer it receives {sum(peaks) / len(peaks):.0%} of a query's attention." if peaks else ""
    )
    return f"The primary sink is there after blocks {first} to {first + lifetime - 1}.{share}"


def _levels(report: SinkReport) -> str:
    rows = [row for row in level_rows(report) if row.kind == "secondary"]
    if not rows:
        return "There are no secondary sinks."
    n = sum(row.n_sinks for row in rows)
    levels = f"{len(rows)} level{'s' if len(rows) > 1 else ''}"
    return (
        f"{n} secondary sink{'s' if n > 1 else ''} in {levels}, from block {min(row.first_layer for row in rows)} on."
    )


def _writers(report: SinkReport) -> str:
    written = [f"{view.level} by {view.writer}" for view in writer_views(report, levels=3) if view.writer]
    return f"Written most: {'; '.join(written)}." if written else ""


def _tests(report: SinkReport) -> list[str]:
    return [
        f"Without the write of {view.module} at sinks of level “{view.level}”, the loss changes by "
        f"{number(view.effect.value)} nats a token, {view.effect.verdict}."
        for view in write_views(report)
    ]


def _residual(report: SinkReport) -> list[str]:
    view = residual_sink_view(report)
    if isinstance(view, Missing):
        return []
    if not view.dimensions:
        return ["No dimension of the residual stream is a sink."]
    top, many = view.dimensions[0], len(view.dimensions) > 1
    names = ", ".join(str(item.dimension) for item in view.dimensions)
    sentences = [
        f"Residual sink dimension{'s' if many else ''} {names}: dimension {top.dimension} is {number(top.score)} × the "
        f"median dimension and the largest in {top.reads} of {len(view.reads)} norm reads."
    ]
    zero = next((effect for effect in view.effects if effect.name == INTERVENTIONS["zero"]), None)
    if zero is not None:
        what = "them" if many else "it"
        sentences.append(f"Setting {what} to 0 changes the loss by {number(zero.value)} nats a token, {zero.verdict}.")
    return sentences
