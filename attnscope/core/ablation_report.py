"""AblationResult: what one task loses when chosen heads are ablated, beside random others."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .errors import OutputError
from .model_info import ModelInfo
from .report import Provenance, read_json
from .run_folder import read_text
from .sink_report import Estimate, EstimateOrMissing

ABLATION_SCHEMA_VERSION: Final = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class AblatedMetric(_Frozen):
    """One metric before and after."""

    name: str = Field(description="as accuracy or loss")
    units: str = Field(default="1", description="1 for shares")
    higher_is_better: bool = True
    before: Estimate
    after: Estimate
    change: Estimate = Field(description="after minus before, paired over prompts")
    p: float | None = Field(description="two-sided, paired over prompts")
    control: EstimateOrMissing = Field(description="random other units ablated; the interval is over prompts")
    control_draws: tuple[float, ...] = ()


class AblationResult(_Frozen):
    """One ablation of some heads on one task."""

    schema_version: Literal[1] = ABLATION_SCHEMA_VERSION
    model: ModelInfo
    task: str
    n_prompts: int = Field(ge=1)
    mode: str = Field(description="zero, mean, resample, …")
    heads: tuple[str, ...] = Field(min_length=1)
    metrics: tuple[AblatedMetric, ...] = Field(min_length=1)
    layer_matched: bool = Field(default=True, description="whether every control took heads of the same layers")
    provenance: Provenance
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the result as JSON text; `AblationResult.from_json` reads the identical one back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "ablation result") -> AblationResult:
        """Read a result.

        Raises:
            ReportError: not JSON, not an ablation result, or written by a newer version.
        """
        return read_json(cls, text, where, "an ablation result", ABLATION_SCHEMA_VERSION)


def write_ablation(path: str | Path, result: AblationResult) -> Path:
    """Write a result as one JSON file; an earlier result there is replaced.

    Raises:
        OutputError: something else stands there, or the disk refused.
    """
    place = Path(path)
    if place.exists() and not _ours(place):
        fix = "Choose another --out; nothing was changed."
        raise OutputError(f"output {place}", found="something else", expected="an earlier ablation result", fix=fix)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.part")
        beside.write_text(result.to_json(), encoding="utf-8")
        beside.replace(place)
    except OSError as error:
        raise OutputError(f"output {place}", found=str(error), expected="a place that can be written") from error
    return place


def open_ablation(path: str | Path) -> AblationResult:
    """Read a result.

    Raises:
        ReportError: missing, corrupt or newer.
    """
    return AblationResult.from_json(read_text(Path(path)), str(path))


def _ours(place: Path) -> bool:
    from .errors import ReportError

    try:
        open_ablation(place)
    except ReportError:
        return False
    return True
