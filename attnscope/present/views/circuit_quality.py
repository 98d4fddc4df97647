"""Circuits standing alone: faithfulness over size, completeness and minimality; and what two circuits share."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.circuit_report import CircuitOverlap, CircuitReport, FaithfulnessCurve
from ..tokens import visible
from .circuit_units import LEVEL_WORDS


@dataclass(frozen=True)
class FaithfulnessLine:
    """f over circuit size (share of all units); None where it was not measured."""

    title: str
    task: str
    sizes: tuple[float, ...]
    values: tuple[float | None, ...]
    control: tuple[float | None, ...]
    cpr: float | None
    cmd: float | None


@dataclass(frozen=True)
class QualityRow:
    """One circuit: its metric beside the model's, the worst subset of completeness, and units that do little.

    Attributes:
        worst: (subset, gap) of the largest gap; None where no subset was tried.
        least: (unit, change) of the smallest change; None where minimality was not measured.
    """

    name: str
    metric: str
    model: float
    circuit: float
    empty: float
    faithfulness: float | None
    worst: tuple[str, float] | None
    subsets: int
    least: tuple[str, float] | None


@dataclass(frozen=True)
class OverlapRow:
    """Units that two circuits share, against chance; names are plain text."""

    name: str
    shared: tuple[str, ...]
    sizes: tuple[int, int]
    n_units: int
    jaccard: float | None
    expected: float
    p: float
    layer_expected: float
    layer_p: float


def faithfulness_lines(report: CircuitReport) -> list[FaithfulnessLine]:
    """Return every curve, in the report's order."""
    return [_line(item) for item in report.faithfulness]


def quality_rows(report: CircuitReport) -> list[QualityRow]:
    """Return every circuit that was tested alone, in the report's order."""
    rows = []
    for item in report.quality:
        worst = max(item.completeness, key=lambda test: test.gap, default=None)
        held = [(unit, value) for unit, value in item.minimality.items() if value is not None]
        least = min(held, key=lambda pair: pair[1], default=None)
        one, many = LEVEL_WORDS[item.level]
        size = f"{len(item.units)} {one if len(item.units) == 1 else many}"
        rows.append(
            QualityRow(
                name=f"{visible(item.task, 60)}, {size}",
                metric=visible(item.metric, 60),
                model=item.model,
                circuit=item.circuit,
                empty=item.empty,
                faithfulness=item.faithfulness,
                worst=(visible(worst.subset, 80), worst.gap) if worst else None,
                subsets=len(item.completeness),
                least=(visible(least[0]), least[1]) if least else None,
            )
        )
    return rows


def overlap_rows(report: CircuitReport) -> list[OverlapRow]:
    """Return every pair of circuits, in the report's order."""
    return [_overlap(item) for item in report.overlaps]


def _line(item: FaithfulnessCurve) -> FaithfulnessLine:
    many = LEVEL_WORDS[item.level][1]
    return FaithfulnessLine(
        title=f"{visible(item.task, 60)}, {many} by {visible(item.ranking, 60)}",
        task=visible(item.task, 60),
        sizes=item.sizes,
        values=item.faithfulness,
        control=item.control,
        cpr=item.cpr,
        cmd=item.cmd,
    )


def _overlap(item: CircuitOverlap) -> OverlapRow:
    many = LEVEL_WORDS[item.level][1]
    return OverlapRow(
        name=f"{visible(item.first, 60)} and {visible(item.second, 60)} ({many})",
        shared=tuple(map(visible, item.shared)),
        sizes=item.sizes,
        n_units=item.n_units,
        jaccard=item.jaccard,
        expected=item.expected,
        p=item.p,
        layer_expected=item.layer_expected,
        layer_p=item.layer_p,
    )
