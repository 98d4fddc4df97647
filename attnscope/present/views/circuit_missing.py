"""What a circuit report does not hold, and why."""

from __future__ import annotations

from collections import Counter

from ...core.circuit_report import CircuitReport
from ...core.report import Missing
from ...core.units import LEVELS
from ..tokens import visible
from .circuit_units import LEVEL_WORDS

PARTS = {
    "circuits": "Circuits",
    "dissociations": "Double dissociation",
    "curves": "Accuracy over circuit size",
    "faithfulness": "Faithfulness over circuit size",
    "quality": "Completeness and minimality",
    "overlaps": "Overlap of circuits",
    "transfers": "Transfer of an edit",
    "edges": "Graph of edges",
}
"""Optional parts of core.circuit_report.CircuitReport, in reading order."""
UNKNOWN = "not asked for"


def circuit_missing(report: CircuitReport) -> list[tuple[str, str]]:
    """Return (what, why) of everything that was not measured; plain text, as the report gives it."""
    found = []
    for task in report.tasks:
        for what, item in (("accuracy", task.accuracy), ("metric", task.metric), ("corrupt prompts", task.corrupt)):
            if isinstance(item, Missing):
                found.append((f"{visible(task.name, 60)}: {what}", item.reason))
    for level in LEVELS:
        held = report.level(level)
        if held is None:
            found.append((f"Effects of {LEVEL_WORDS[level][1]}", report.missing.get(level, UNKNOWN)))
            continue
        for task in report.tasks:
            items = [unit.effects.get(task.name) for unit in held.units]
            reasons = Counter(item.reason for item in items if isinstance(item, Missing))
            for reason, count in reasons.items():
                many = LEVEL_WORDS[level][1]
                units = f"all {many}" if count == len(items) else f"{count:,} of {len(items):,} {many}"
                found.append((f"Effect on {visible(task.name, 60)}, {units}", reason))
    found += [(title, report.missing.get(name, UNKNOWN)) for name, title in PARTS.items() if not getattr(report, name)]
    return found
