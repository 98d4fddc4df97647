"""Labels: which of a head's labels says most, how many heads carry each, and which heads carry it most clearly."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.report import HeadRecord, HeadReport, Label, Measured
from ..style import LABEL_STYLES

SPECIFICITY: tuple[str, ...] = (
    "reasoning",
    "recall",
    "retrieval",
    "induction",
    "duplicate_token",
    "previous_token",
    "positional",
    "local",
    "sink",
    "unclassified",
)
"""Labels from the one that says most about a head to the one that says nothing."""


@dataclass(frozen=True)
class RankedHead:
    """One head in the list of a label's heads; `full` is the score's largest value: 100 for percentages, else 1."""

    name: str
    layer: int
    head: int
    score: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    labels: tuple[str, ...]
    units: str = "1"

    @property
    def full(self) -> float:
        """The value that fills a bar."""
        return 100.0 if self.units == "percent" else 1.0


def labels_of(record: HeadRecord) -> tuple[str, ...]:
    """Return a head's labels, the most specific first."""
    return tuple(sorted({label.name for label in record.labels}, key=SPECIFICITY.index))


def label_counts(report: HeadReport) -> dict[str, int]:
    """Return how many heads carry each label, in the order of SPECIFICITY, labels without heads left out."""
    counts = {label: sum(record.has(label) for record in report.records) for label in SPECIFICITY}
    return {label: count for label, count in counts.items() if count}


def top_heads(report: HeadReport, label: str, limit: int | None = None) -> list[RankedHead]:
    """Return the heads that carry a label, the largest score first; labels without a score give none."""
    found = []
    for record in report.records:
        given = next((item for item in record.labels if item.name == label and item.score), None)
        if given is not None and given.value is not None:
            found.append(_ranked(record, given))
    found.sort(key=lambda head: (-head.value / head.full, head.layer, head.head))
    return found[:limit]


def _ranked(record: HeadRecord, label: Label) -> RankedHead:
    score, value = str(label.score), float(label.value or 0.0)
    evidence = record.scores.get(score)  # type: ignore[call-overload]
    measured = evidence if isinstance(evidence, Measured) else None
    interval = measured.interval if measured else None
    return RankedHead(
        name=str(record.id),
        layer=record.layer,
        head=record.head,
        score=score,
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=measured.n if measured else None,
        labels=labels_of(record),
        units=measured.units if measured else "1",
    )


def headline(report: HeadReport) -> str:
    """Return one sentence: how many heads, and how many of each kind, the commonest first.

    Example:
        `64 heads: 31 sinks, 2 induction, 31 unclassified`
    """
    counts = label_counts(report)
    known = sorted((name for name in counts if name != "unclassified"), key=lambda name: -counts[name])
    words = [_count(name, counts[name]) for name in known]
    if "unclassified" in counts:
        words.append(_count("unclassified", counts["unclassified"]))
    n = len(report.records)
    return f"{n:,} head{'s' if n != 1 else ''}: {', '.join(words)}"


def _count(label: str, count: int) -> str:
    style = LABEL_STYLES[label]
    return f"{count:,} {style.one if count == 1 else style.many}"
