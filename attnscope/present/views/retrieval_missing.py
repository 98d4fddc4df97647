"""What a retrieval report does not hold, and why."""

from __future__ import annotations

from collections import Counter

from ...core.report import Missing
from ...core.retrieval_report import RetrievalReport
from ...core.retrieval_run import MEASURES
from .retrieval_measures import WORDS

COMMAND = "made by `attnscope retrieval`"
UNKNOWN = "the report does not say why"


def curve_absent(report: RetrievalReport) -> str:
    """Return why there is no ablation curve, and the command that makes one."""
    return f"{_reason(report.curve_missing)}; {COMMAND}"


def budgets_absent(report: RetrievalReport) -> str:
    """Return why no KV heads were set to streaming, and the command that measures it."""
    return f"{_reason(report.budgets_missing)}; {COMMAND}"


def retrieval_missing(report: RetrievalReport) -> list[tuple[str, str]]:
    """Return (what, why) of everything that was not measured; plain text, as the report gives it."""
    found = [] if report.cells else [("Needle accuracy", "no needle was given")]
    for name in MEASURES:
        items = [getattr(head, name) for head in report.heads]
        reasons = Counter(item.reason for item in items if isinstance(item, Missing))
        for reason, count in reasons.items():
            heads = "every head" if count == len(items) else f"{count} of {len(items)} heads"
            found.append((f"{WORDS[name].title}, {heads}", reason))
    if isinstance(report.stability, Missing):
        found.append(("Stability of the ranking", report.stability.reason))
    if not report.agreements:
        found.append(("Agreement of measures", "no two measures were compared"))
    if not report.curve:
        found.append(("Accuracy without heads", curve_absent(report)))
    if not report.budgets:
        found.append(("Accuracy with few full KV heads", budgets_absent(report)))
    return found


def _reason(given: str | None) -> str:
    return given or UNKNOWN
