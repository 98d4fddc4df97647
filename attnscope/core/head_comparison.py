"""HeadComparison: two sources of head scores set beside each other, as a versioned document."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .head_file import Space
from .report import Interval, Missing, read_json

HEAD_COMPARISON_VERSION: Final = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Side(_Frozen):
    """One of the two that were compared."""

    path: str
    what: str = Field(description="'run', or the format of a file")
    score: str
    space: Space = Field(description="in which its scores stand")
    reduction: Literal["max over query heads"] | None = Field(default=None, description="to KV heads, if it was made")
    model_id: str | None
    n_layers: int
    n_heads: int = Field(description="in the space of the comparison")
    chosen_by: str = Field(description="how the set of heads was chosen")
    tied: int = Field(description="heads outside the set with the value of its last one")


class OverlapResult(_Frozen):
    """Overlap of two sets of heads; chance is exact (hypergeometric), over all heads and within layers."""

    heads: int
    first: int
    second: int
    shared: int
    jaccard: float | None
    expected: float
    p_value: float
    layer_expected: float
    layer_p_value: float


class RankCorrelation(_Frozen):
    """Rank correlations over the heads that both have a score for."""

    heads: int
    spearman: float | Missing
    spearman_interval: Interval | None
    kendall: float | Missing
    kendall_interval: Interval | None


class ScoreRow(_Frozen):
    """One score that both runs measured."""

    score: str
    overlap: OverlapResult
    correlation: RankCorrelation


class LabelRow(_Frozen):
    """One label in both runs."""

    label: str
    heads: int
    first: int
    second: int
    both: int
    kappa: float | Missing


class ChunkOverlap(_Frozen):
    """Overlap of dominant chunks, a mean over heads; `expected` is that of chunks drawn at random."""

    heads: int
    chunks: int
    n_chunks: int
    shared: float = Field(description="share of the smaller set that is in both, mean over heads, 0..1")
    expected: float


class HeadPoint(_Frozen):
    """One head in both."""

    layer: int
    head: int
    first: float | None
    second: float | None
    in_first: bool
    in_second: bool


class HeadComparison(_Frozen):
    """Two sources of head scores beside each other."""

    schema_version: Literal[1] = HEAD_COMPARISON_VERSION
    document: Literal["head_comparison"] = "head_comparison"
    space: Space
    first: Side
    second: Side
    overlap: OverlapResult | Missing
    correlation: RankCorrelation | Missing
    chunks: ChunkOverlap | None = None
    scores: tuple[ScoreRow, ...] = Field(default=(), description="every score that both runs measured")
    labels: tuple[LabelRow, ...] = Field(default=(), description="every label, where both are runs")
    points: tuple[HeadPoint, ...] = ()

    def to_json(self) -> str:
        """Return the comparison as JSON text."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "comparison") -> HeadComparison:
        """Read a comparison.

        Raises:
            ReportError: not JSON, not a comparison, or written by a newer version.
        """
        return read_json(cls, text, where, "a comparison of heads", HEAD_COMPARISON_VERSION)
