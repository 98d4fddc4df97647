"""Every retrieval measure of every head as grids, and how far the measures agree."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.retrieval_report import RetrievalReport
from ...core.retrieval_run import MEASURES
from ..tokens import visible
from .points import Measure, point_grid
from .scores import ScoreGrid

WORDS = {
    "retrieval": Measure("Retrieval, answer given", "answer tokens at whose source the head looks most",
                         citation="2404.15574", short="Answer given"),
    "retrieval_decoded": Measure("Retrieval while decoding", "generated tokens that are those the head looks at most, "
                                 "over the answer's length", False, "2404.15574", "Decoding"),
    "qr_score": Measure("QR score", "attention from the question to the needle, minus that of a question about nothing",
                        False, "2506.09944"),
    "razor_echo": Measure("Razor echo", "attention on earlier copies of the token", citation="2407.15891"),
    "razor_induction": Measure("Razor induction", "attention on the tokens after earlier copies",
                               citation="2407.15891"),
    "vertical_slash_mass": Measure("Vertical and slash", "attention that the best columns and diagonals hold",
                                   citation="2407.02490", short="Vertical + slash"),
}  # fmt: skip
"""How the measurements of core.retrieval_run.MEASURES read."""


@dataclass(frozen=True)
class AgreementRow:
    """Two rankings of all heads; names are plain text.

    Attributes:
        spearman: rank correlation, -1..1; None where one ranking is constant.
        k, common: heads at the top of each, and how many are in both.
        expected: how many would be by chance.
    """

    first: str
    second: str
    spearman: float | None
    k: int
    common: int
    expected: float


def retrieval_grids(report: RetrievalReport) -> list[ScoreGrid]:
    """Return the layer × head grid of every measure, the measured ones first; none where the report has no heads."""
    if not report.heads:
        return []
    grids = [
        point_grid(name, WORDS[name], {(h.layer, h.head): getattr(h, name) for h in report.heads}, report.model.n_heads)
        for name in MEASURES
    ]
    return sorted(grids, key=lambda grid: not grid.measured)


def agreement_rows(report: RetrievalReport) -> list[AgreementRow]:
    """Return every pair of measures, in the report's order."""
    return [
        AgreementRow(_title(a.first), _title(a.second), a.spearman, a.k, a.common, a.expected)
        for a in report.agreements
    ]


def _title(name: str) -> str:
    return WORDS[name].title if name in WORDS else visible(name)
