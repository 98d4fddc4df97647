"""Retrieval heads, the highest first, and how many needles their ranking needs to settle."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.ids import HeadId
from ...core.report import Missing
from ...core.retrieval_report import RetrievalHead, RetrievalReport
from ...core.retrieval_run import MEASURES
from .points import Point, point


@dataclass(frozen=True)
class HeadLine:
    """One head with every measure, by the names of core.retrieval_run.MEASURES.

    Attributes:
        above: whether its retrieval score reaches the threshold; None where it was not measured.
        certain: whether the whole interval does; None without an interval.
        sizes: columns and diagonals of the best split, tokens.
    """

    name: str
    layer: int
    head: int
    kv_head: int
    measures: dict[str, Point]
    above: bool | None
    certain: bool | None
    sizes: tuple[int | None, int | None]

    @property
    def score(self) -> Point:
        """Its retrieval score with the answer given."""
        return self.measures["retrieval"]

    @property
    def decoded(self) -> Point:
        """Its retrieval score while decoding."""
        return self.measures["retrieval_decoded"]


@dataclass(frozen=True)
class StabilityView:
    """How the top k heads of n needles agree with those of all needles.

    Attributes:
        overlap: mean share in common over random orders, 0..1; the last one is 1 by construction.
        low: 5% quantile over the orders.
        settled: needles from which on the mean overlap stays at 0.9 or above.
    """

    k: int
    trials: tuple[int, ...]
    overlap: tuple[float, ...]
    low: tuple[float, ...]
    settled: int

    @property
    def early(self) -> bool:
        """Whether it settles within the first half of the needles; later, the end compares itself with itself."""
        return 2 * self.settled <= max(self.trials)

    @property
    def sentence(self) -> str:
        """The same in words."""
        heads = "head is" if self.k == 1 else f"{self.k} heads are"
        settled = f"The first {heads} settled from {self.settled} of {max(self.trials)} answered needles on"
        more = "" if self.early else ", which is late: other needles may give another ranking"
        return f"{settled} (mean overlap 90% or more){more}."


def head_lines(report: RetrievalReport) -> list[HeadLine]:
    """Return every head, the highest retrieval score first; those without one last, in order."""
    lines = [_line(head, report.threshold) for head in report.heads]
    return sorted(lines, key=lambda line: (line.score.value is None, -(line.score.value or 0.0), line.layer, line.head))


def top_lines(report: RetrievalReport, most: int = 20) -> list[HeadLine]:
    """Return the highest heads that have a retrieval score."""
    return [line for line in head_lines(report) if line.score.value is not None][:most]


def stability_view(report: RetrievalReport) -> StabilityView | Missing:
    """Return how stable the ranking is, or why that is not known."""
    item = report.stability
    if isinstance(item, Missing):
        return item
    return StabilityView(item.k, item.trials, item.overlap, item.low, item.settled)


def _line(head: RetrievalHead, threshold: float) -> HeadLine:
    measures = {name: point(getattr(head, name)) for name in MEASURES}
    score = measures["retrieval"]
    return HeadLine(
        name=str(HeadId(head.layer, head.head)),
        layer=head.layer,
        head=head.head,
        kv_head=head.kv_head,
        measures=measures,
        above=None if score.value is None else score.value >= threshold,
        certain=None if score.low is None else score.low >= threshold,
        sizes=(head.vertical_size, head.slash_size),
    )
