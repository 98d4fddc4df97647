"""The end of the page: rules, what was not measured, provenance."""

from __future__ import annotations

from ...core.circuit_report import CircuitReport
from ...core.frequency_report import FrequencyReport
from ...core.report import HeadReport
from ...core.retrieval_report import RetrievalReport
from ...core.sink_report import SinkReport
from ..views.provenance import RuleRow, provenance_view, rule_rows
from ..views.scores import missing_evidence
from ..wording import SIGNS
from . import _markup as m


def rules_section(report: HeadReport) -> str:
    """Return the taxonomy as it was applied."""
    rows = (
        (
            m.chip(rule.label),
            f"<code>{_condition(rule)}</code>",
            m.text(rule.unless.replace("_", " ") or "—"),
            m.text(rule.why),
            m.citation(rule.citation, rule.url),
            str(rule.heads),
        )
        for rule in rule_rows(report)
    )
    columns = ("Label", "Rule", "Unless the head is", "Threshold", "Source", "Heads")
    lede = (
        "A head gets every label whose rule holds, from the top down. A score that was not measured makes no rule hold."
    )
    return m.section("rules", "Rules", lede, m.panel(m.table(columns, rows, right=(5,))))


def _condition(rule: RuleRow) -> str:
    threshold = "?" if rule.threshold is None else f"{rule.threshold:g}"
    return m.text(f"{rule.score} {SIGNS.get(rule.comparison, rule.comparison)} {threshold}")


def missing_section(report: HeadReport) -> str:
    """Return what was not measured, and why."""
    n = len(report.records)
    rows = [
        (m.text(item.title), "all" if item.all_heads else f"{item.heads} of {n}", m.text(item.reason))
        for item in missing_evidence(report)
    ]
    body = (
        m.table(("Score", "Heads", "Why"), rows)
        if rows
        else '<p class="note">Every score was measured on every head.</p>'
    )
    return m.section("missing", "Not measured", "Missing evidence is never written as 0.", m.panel(body))


def provenance_section(report: HeadReport | SinkReport | RetrievalReport | FrequencyReport | CircuitReport) -> str:
    """Return how the report was made."""
    view = provenance_view(report)
    facts = "".join(f"<dt>{m.text(name)}</dt><dd>{m.text(value)}</dd>" for name, value in view.facts)
    more = [*view.read_sites.items(), *view.libraries.items()]
    extra = "".join(f"<dt>{m.text(name)}</dt><dd>{m.text(value)}</dd>" for name, value in more)
    sets = m.table(
        ("Prompt set", "Prompts", "Tokens", "Longest", "Parameters", "SHA-256 of token ids"),
        (
            (
                m.text(item.name),
                f"{item.n_prompts:,}",
                f"{item.n_tokens:,}",
                f"{item.max_length:,}",
                m.text(
                    ", ".join(f"{key} {value}" for key, value in item.parameters.items() if value is not None) or "—"
                ),
                f'<code title="{m.text(item.fingerprint)}">{m.text(item.fingerprint[:12])}…</code>',
            )
            for item in view.prompt_sets
        ),
        right=(1, 2, 3),
    )
    notes = "".join(f"<li>{m.text(note)}</li>" for note in view.notes)
    notes = f'<h3 class="later">Notes</h3><ul class="note">{notes}</ul>' if notes else ""
    body = (
        f'<div class="two">{m.panel(f"<dl class=dl>{facts}</dl>", "Run")}'
        f"{m.panel(f'<dl class=dl>{extra}</dl>{notes}', 'Reads and libraries')}"
        f'</div><div style="height:20px"></div>{m.panel(sets, "Prompt sets")}'
    )
    return m.section("provenance", "Provenance", "How this report was made, and on what.", body)
