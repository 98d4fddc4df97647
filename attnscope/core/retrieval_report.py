"""RetrievalReport: which heads retrieve, by every published measure, and what is lost without them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .model_info import ModelInfo
from .report import Missing, Provenance, read_json
from .sink_report import Estimate, EstimateOrMissing

RETRIEVAL_SCHEMA_VERSION: Final = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class NeedleCell(_Frozen):
    """How often the model answers at one length and depth, teacher-forced: every answer token is the likeliest."""

    length: int = Field(ge=1, description="tokens of prompt and answer")
    depth: float = Field(ge=0, le=1, description="0 start, 1 end")
    accuracy: Estimate


class RetrievalHead(_Frozen):
    """Every retrieval measure of one query head."""

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    kv_head: int = Field(ge=0)
    retrieval: EstimateOrMissing = Field(description="2404.15574 with the answer given, answered needles only, 0..1")
    retrieval_decoded: EstimateOrMissing = Field(description="2404.15574 while decoding, answered needles only, >= 0")
    qr_score: EstimateOrMissing = Field(description="QRHead (2506.09944), -1..1")
    razor_echo: EstimateOrMissing = Field(description="RazorAttention (2407.15891), 0..1")
    razor_induction: EstimateOrMissing = Field(description="RazorAttention (2407.15891), 0..1")
    vertical_slash_mass: EstimateOrMissing = Field(description="MInference (2407.02490), 0..1")
    vertical_size: int | None = Field(description="columns of the best split, tokens")
    slash_size: int | None = Field(description="diagonals of the best split, tokens")


class RankingStability(_Frozen):
    """How many trials the top heads need until they are those of all trials."""

    kind: Literal["found"] = "found"
    k: int = Field(ge=1, description="heads compared")
    trials: tuple[int, ...]
    overlap: tuple[float, ...] = Field(description="mean share in common with all trials' top k, over random orders")
    low: tuple[float, ...] = Field(description="5% quantile over the orders")
    settled: int = Field(description="trials from which on the mean overlap stays at 0.9 or above")


class RankingAgreement(_Frozen):
    """Two rankings of all heads."""

    kind: Literal["found"] = "found"
    first: str
    second: str
    spearman: float | None = Field(description="rank correlation over all heads; None where one is constant")
    k: int
    common: int = Field(description="heads in both top k")
    expected: float = Field(description="by chance")


class AblationStep(_Frozen):
    """Needle accuracy without the first heads of the ranking, beside as many random others."""

    mode: Literal["zero", "uniform"]
    heads: tuple[str, ...]
    accuracy: Estimate = Field(description="over prompts")
    change: Estimate = Field(description="minus the whole model's, paired over prompts")
    control: EstimateOrMissing = Field(description="mean over draws and prompts; the interval is over prompts")
    control_draws: tuple[float, ...] = Field(description="accuracy of each draw")
    layer_matched: bool


class BudgetPoint(_Frozen):
    """Needle accuracy with some KV heads full and the others streaming."""

    length: int
    budget: float = Field(ge=0, le=1, description="share of KV heads that stay full")
    full: tuple[str, ...] = Field(description="KV heads that stay full, as L3G1")
    accuracy: Estimate
    change: Estimate = Field(description="minus all full, paired over prompts")
    control: EstimateOrMissing = Field(description="random choices of as many KV heads; the interval is over draws")
    control_draws: tuple[float, ...] = Field(description="accuracy of each random choice")
    kept: float = Field(ge=0, le=1, description="share of the whole key/value cache that is kept")


class RetrievalReport(_Frozen):
    """Which heads of one model retrieve, and what is lost without them."""

    schema_version: Literal[1] = RETRIEVAL_SCHEMA_VERSION
    model: ModelInfo
    n_needles: int = Field(ge=0)
    n_answered: int = Field(ge=0)
    n_others: int = Field(ge=0, description="other needles in each prompt")
    cells: tuple[NeedleCell, ...]
    heads: tuple[RetrievalHead, ...]
    stability: Annotated[RankingStability | Missing, Field(discriminator="kind")]
    agreements: tuple[RankingAgreement, ...]
    ranking: tuple[str, ...] = Field(description="heads by retrieval score, the first ones of the ablations")
    threshold: float = Field(description="score from which on a head counts as a retrieval head")
    curve: tuple[AblationStep, ...]
    curve_missing: str | None = Field(default=None, description="why there is no curve")
    budgets: tuple[BudgetPoint, ...] = ()
    budgets_missing: str | None = None
    sink_tokens: int | None = None
    recent_tokens: int | None = None
    provenance: Provenance
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the report as JSON text; `RetrievalReport.from_json` reads the identical report back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "retrieval report") -> RetrievalReport:
        """Read a report.

        Raises:
            ReportError: not JSON, not a retrieval report, or written by a newer version.
        """
        return read_json(cls, text, where, "a retrieval report", RETRIEVAL_SCHEMA_VERSION)


__all__ = [
    "AblationStep",
    "BudgetPoint",
    "NeedleCell",
    "RankingAgreement",
    "RankingStability",
    "RetrievalHead",
    "RetrievalReport",
]
