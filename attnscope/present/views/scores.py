"""Scores as grids, and the list of what was not measured."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ...core.names import SCORES
from ...core.report import HeadReport, Measured, Missing
from ..wording import SCORE_WORDS

Row = tuple[float | None, ...]


@dataclass(frozen=True)
class ScoreGrid:
    """One score of every head, layers by heads; None where it was not measured.

    Attributes:
        reason: why no head has it; None where some head has.
    """

    score: str
    title: str
    meaning: str
    units: str | None
    prompt_set: str | None
    share: bool
    layers: tuple[int, ...]
    n_heads: int
    values: tuple[Row, ...]
    low: tuple[Row, ...]
    high: tuple[Row, ...]
    reason: str | None

    @property
    def measured(self) -> bool:
        """Whether any head has the score."""
        return self.reason is None


@dataclass(frozen=True)
class MissingEvidence:
    """A score that some heads lack, and why."""

    score: str
    title: str
    reason: str
    heads: int
    all_heads: bool


def score_grid(report: HeadReport, score: str) -> ScoreGrid:
    """Return one score of every head."""
    info, words = report.model, SCORE_WORDS[score]
    cells = {(r.layer, r.head): r.scores.get(score) for r in report.records}  # type: ignore[call-overload]
    measured = [item for item in cells.values() if isinstance(item, Measured)]
    reasons = [item.reason for item in cells.values() if isinstance(item, Missing)]

    def table(part: str) -> tuple[Row, ...]:
        return tuple(
            tuple(_part(cells.get((layer, head)), part) for head in range(info.n_heads))
            for layer in info.attention_layers
        )

    return ScoreGrid(
        score=score,
        title=words.title,
        meaning=words.meaning,
        units=measured[0].units if measured else None,
        prompt_set=measured[0].prompt_set if measured else None,
        share=words.share,
        layers=info.attention_layers,
        n_heads=info.n_heads,
        values=table("value"),
        low=table("low"),
        high=table("high"),
        reason=None if measured else (reasons[0] if reasons else "the report does not hold it"),
    )


def score_grids(report: HeadReport) -> list[ScoreGrid]:
    """Return every score, the measured ones first, both in the order of core.names.SCORES."""
    return sorted((score_grid(report, score) for score in SCORES), key=lambda grid: not grid.measured)


def missing_evidence(report: HeadReport) -> list[MissingEvidence]:
    """Return what was not measured, one entry a score and reason; what no head has comes first."""
    lacking: dict[tuple[str, str], int] = defaultdict(int)
    for record in report.records:
        for score in SCORES:
            item = record.scores.get(score)  # type: ignore[call-overload]
            if item is None:
                lacking[score, "the report does not hold it"] += 1
            elif isinstance(item, Missing):
                lacking[score, item.reason] += 1
    n = len(report.records)
    found = [
        MissingEvidence(score, SCORE_WORDS[score].title, reason, count, count == n)
        for (score, reason), count in lacking.items()
    ]
    return sorted(found, key=lambda item: (not item.all_heads, SCORES.index(item.score), item.reason))


def _part(item: Measured | Missing | None, part: str) -> float | None:
    if not isinstance(item, Measured):
        return None
    if part == "value":
        return item.value
    return getattr(item.interval, part) if item.interval else None
