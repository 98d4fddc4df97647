"""Needle accuracy by length and depth."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.retrieval_report import RetrievalReport
from .points import Point, point


@dataclass(frozen=True)
class NeedleGrid:
    """Accuracy, depths by lengths; a cell without needles has no value.

    Attributes:
        lengths: tokens, ascending.
        depths: 0 start, 1 end, ascending.
        cells: a row a depth, a column a length.
    """

    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    cells: tuple[tuple[Point, ...], ...]

    @property
    def weakest(self) -> tuple[Point, int, float]:
        """The cell with the lowest accuracy (the shortest such), its length and its depth."""
        held = [
            (cell, length, depth)
            for depth, row in zip(self.depths, self.cells, strict=True)
            for length, cell in zip(self.lengths, row, strict=True)
            if cell.value is not None
        ]
        return min(held, key=lambda item: (item[0].value, item[1], item[2]))


def needle_grid(report: RetrievalReport) -> NeedleGrid | None:
    """Return the grid; None where the report has no cells."""
    if not report.cells:
        return None
    held = {(cell.length, cell.depth): point(cell.accuracy) for cell in report.cells}
    lengths = tuple(sorted({length for length, _ in held}))
    depths = tuple(sorted({depth for _, depth in held}))
    absent = Point(None, reason="no needle was given here")
    cells = tuple(tuple(held.get((length, depth), absent) for length in lengths) for depth in depths)
    return NeedleGrid(lengths, depths, cells)
