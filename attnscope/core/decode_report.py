"""DecodeReport: how many needles a model answers while some of its KV heads stream."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from .model_info import ModelInfo
from .report import Measured, Provenance, _Frozen, read_json

SCHEMA_VERSION: Final = 1


class BudgetRow(_Frozen):
    """One choice of full KV heads at one budget and prompt length."""

    choice: str = Field(description="all full, ours or random")
    length: int = Field(ge=1, description="tokens a prompt, the answer included")
    budget: float = Field(ge=0, le=1, description="share of KV heads that are full")
    n_full: int = Field(ge=0, description="full KV heads")
    accuracy: Measured = Field(description="prompts answered; Wilson's interval, or a bootstrap over draws")
    difference: Measured = Field(description="to all full on the same prompts, bootstrap over prompts or draws")
    draws: int = Field(ge=1, description="random choices; 1 where the choice is not random")
    close: int = Field(ge=0, description="draws that lose at most 3 points against all full")
    kept: float = Field(ge=0, le=1, description="share of the full key/value cache that is kept at this length")


class DecodeReport(_Frozen):
    """Needle accuracy under budgets of full KV heads.

    Example:
        >>> from attnscope.core.decode_report import DecodeReport
        >>> DecodeReport.from_json("{}")
        Traceback (most recent call last):
        attnscope_kernels.errors.ReportError: ...
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelInfo
    rule: str = Field(description="how KV heads are ranked")
    ranked: tuple[str, ...] = Field(description="KV heads, best first, as L7G0")
    sink_tokens: int = Field(ge=0)
    recent_tokens: int = Field(ge=1)
    prefill: Literal["dense", "streaming"]
    rows: tuple[BudgetRow, ...]
    provenance: Provenance

    def to_json(self) -> str:
        """Return the report as JSON text; `DecodeReport.from_json` reads the identical report back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "decode report") -> DecodeReport:
        """Read a report.

        Raises:
            ReportError: not JSON, not a report, or written by a newer version.
        """
        return read_json(cls, text, where, "a decode report", SCHEMA_VERSION)
