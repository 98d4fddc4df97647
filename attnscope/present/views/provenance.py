"""Provenance: how a report was made, and the rules that were applied."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.circuit_report import CircuitReport
from ...core.frequency_report import FrequencyReport
from ...core.report import HeadReport, PromptSet
from ...core.retrieval_report import RetrievalReport
from ...core.sink_report import SinkReport
from ..wording import arxiv_url


@dataclass(frozen=True)
class RuleRow:
    """One rule of the taxonomy, as it was applied; `url` is None where the citation is no arXiv id."""

    name: str
    label: str
    score: str
    comparison: str
    threshold: float | None
    unless: str
    why: str
    citation: str
    url: str | None
    heads: int


@dataclass(frozen=True)
class ProvenanceView:
    """How the report was made.

    Attributes:
        facts: (name, value) pairs of plain text, in reading order.
    """

    facts: tuple[tuple[str, str], ...]
    prompt_sets: tuple[PromptSet, ...]
    libraries: dict[str, str]
    read_sites: dict[str, str]
    notes: tuple[str, ...]


def rule_rows(report: HeadReport) -> list[RuleRow]:
    """Return the rules in the order in which they were applied, with how many heads each one named."""
    rows = []
    for rule in report.rules:
        threshold, citation = rule.get("threshold"), str(rule.get("citation") or "")
        name = str(rule.get("name") or "")
        rows.append(
            RuleRow(
                name=name,
                label=str(rule.get("label") or ""),
                score=str(rule.get("score") or ""),
                comparison=str(rule.get("comparison") or ""),
                threshold=float(threshold) if isinstance(threshold, int | float) else None,
                unless=str(rule.get("unless") or ""),
                why=str(rule.get("why") or ""),
                citation=citation,
                url=arxiv_url(citation),
                heads=sum(any(label.rule == name for label in record.labels) for record in report.records),
            )
        )
    return rows


def provenance_view(
    report: HeadReport | SinkReport | RetrievalReport | FrequencyReport | CircuitReport,
) -> ProvenanceView:
    """Return how the report was made."""
    made, info = report.provenance, report.model
    random = info.weights == "random"
    facts: list[tuple[str, str | None]] = [
        ("Model", info.model_id),
        ("Revision", info.revision),
        ("Architecture", info.architecture),
        ("Parameters", f"{info.n_parameters:,}" if info.n_parameters else None),
        ("Shape", f"{info.n_layers} layers, {info.n_heads} query heads over {info.n_kv_heads} KV heads, "
                  f"head size {info.head_dim}, width {info.d_model}"),
        ("Weights", f"random, seed {info.weights_seed}, never trained" if random else None),
        ("Context" if random else "Trained context", f"{info.context_length:,} tokens" if info.context_length else ""),
        ("Precision", f"{info.dtype} on {info.device}"),
        ("Backend", info.backend),
        ("Kernels", made.implementation),
        ("First token", made.bos_policy),
        ("Seed", str(made.seed)),
        ("Created", made.created),
        ("Command", made.command),
        ("attnscope", made.attnscope_version),
    ]  # fmt: skip
    return ProvenanceView(
        facts=tuple((name, value) for name, value in facts if value),
        prompt_sets=made.prompt_sets,
        libraries=made.libraries,
        read_sites=made.read_sites,
        notes=made.notes,
    )
