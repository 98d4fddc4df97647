"""Trained gates of KV heads, one table a method."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.gate_report import GateReport, KeptAccuracy
from ..wording import arxiv_url, number, percent
from . import _markup as m

TITLES = {"duo_attention": "DuoAttention: share of full attention", "hardkuma": "LycheeDecode: HardKuma gates"}


def gates_section(reports: Sequence[GateReport]) -> str:
    """Return the gates of every method and what the largest ones keep; empty where none were trained."""
    if not reports:
        return ""
    lede = "Gates are trained while the weights stay as they are; near 1, a KV head needs the whole context."
    body = "".join(m.panel(_gates(report), TITLES[report.method]) for report in reports)
    return m.section("gates", "Trained gates", lede, f'<div class="stack">{body}</div>')


def _gates(report: GateReport) -> str:
    columns = ("Layer", *(f"KV {head}" for head in range(report.model.n_kv_heads)))
    rows = (
        (str(layer), *(f"<b>{gate:.2f}</b>" if gate >= 0.5 else f"{gate:.2f}" for gate in row))
        for layer, row in zip(report.model.attention_layers, report.gates, strict=True)
    )
    table = m.table(columns, rows, right=range(len(columns)))
    source = m.citation(report.source, arxiv_url(report.source) or "")
    losses = ", ".join(f"{m.text(name)} {number(value)}" for name, value in report.final_losses.items())
    notes = "".join(f'<p class="note">{m.text(note)}</p>' for note in report.provenance.notes)
    facts = f'<p class="note">{report.settings["steps"]} steps. Last losses: {losses}. Source: {source}.</p>'
    return f"{table}{facts}{_kept(report)}{notes}"


def _kept(report: GateReport) -> str:
    if report.full_accuracy is None:
        return ""
    columns = ("Full KV heads", "Needle accuracy", "Random, mean", "Random, lowest to highest")
    rows = [("all", percent(report.full_accuracy), "—", "—"), *(_row(one) for one in report.kept)]
    return m.table(columns, rows, right=range(4))


def _row(kept: KeptAccuracy) -> tuple[str, str, str, str]:
    drawn = kept.controls
    spread = f"{percent(min(drawn))} to {percent(max(drawn))}" if drawn else "—"
    mean = percent(sum(drawn) / len(drawn)) if drawn else "—"
    return f"{kept.full_heads} ({percent(kept.budget)})", percent(kept.accuracy), mean, spread
