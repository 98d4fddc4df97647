"""Numbers that papers published, and what a measurement of ours says of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import AttnscopeError
from .model_info import ModelInfo
from .paths import data_path
from .report import Missing, Provenance

Claim = Literal["secondary-sinks", "sink-rate", "residual-sinks"]
CLAIMS: Final[dict[str, str]] = {
    "secondary-sinks": "2512.22213",
    "sink-rate": "2410.10781",
    "residual-sinks": "2601.22966",
}
"""What can be verified, with the paper that claims it."""
CircuitClaim = Literal["ioi", "mib", "greater-than", "circuit-reuse"]
CIRCUIT_CLAIMS: Final[dict[str, str]] = {
    "ioi": "2211.00593",
    "mib": "2504.13151",
    "greater-than": "2305.00586",
    "circuit-reuse": "2310.08744",
}
"""What `verify-circuits` measures, with the paper that claims it."""
VERIFICATION_FORMAT: Final = "attnscope-verification"

Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tolerance(_Frozen):
    """How far a measurement may be from a published number; both 0 means equal."""

    relative: float = Field(ge=0, description="share of the published value")
    absolute: float = Field(ge=0, description="in its units")
    reason: str = Field(min_length=1)

    def allowed(self, value: float) -> float:
        """Return the largest difference from a published value, the larger of both tolerances."""
        return max(self.relative * abs(value), self.absolute)


class Published(_Frozen):
    """One published number of one model."""

    claim: Claim | CircuitClaim
    models: tuple[str, ...] = Field(min_length=1, description="names of the model, as hub ids end")
    metric: str = Field(pattern=r"^[a-z_]+$")
    value: Number | tuple[int, ...] = Field(description="a tuple means that any of these was found")
    units: str = Field(min_length=1)
    source: str = Field(pattern=r"^\d{4}\.\d{5}$", description="arXiv id")
    origin: Literal["code", "text", "third-party code"]
    protocol: dict[str, int | float | str] = Field(min_length=1)
    tolerance: Tolerance

    @model_validator(mode="after")
    def _check(self) -> Published:
        source = {**CLAIMS, **CIRCUIT_CLAIMS}[self.claim]
        if self.source != source:
            raise ValueError(f"{self.claim} comes from {source}, not {self.source}")
        if not isinstance(self.value, float) and (self.tolerance.relative or self.tolerance.absolute):
            raise ValueError(f"{self.metric} is a whole number, so it is compared exactly")
        return self


class Compared(_Frozen):
    """A measured number beside the published one."""

    metric: str
    units: str | None = Field(description="None where nothing is published")
    measured: int | float | Missing
    published: int | float | tuple[int, ...] | None = Field(description="None where nothing is published")
    difference: float | None = Field(description="measured less published, or less the nearest published one")
    allowed: float | None
    verdict: str = Field(description="reproduced, not reproduced, not measured (why), nothing published")
    row: Published | None = None


class Verification(_Frozen):
    """What a model's measurement says of one published claim."""

    format: Literal["attnscope-verification"] = VERIFICATION_FORMAT
    version: Literal[1] = 1
    claim: Claim | CircuitClaim
    source: str
    model: ModelInfo
    published: bool = Field(description="whether anything is published for this model")
    protocol: dict[str, int | float | str] = Field(description="how it was measured here")
    rows: tuple[Compared, ...]
    notes: tuple[str, ...] = ()
    provenance: Provenance

    def to_json(self) -> str:
        """Return the comparison as JSON text."""
        return self.model_dump_json(indent=1) + "\n"


def read_published(path: str | Path | None = None) -> tuple[Published, ...]:
    """Read published numbers.

    Args:
        path: a JSON file with `rows`; None takes the numbers that attnscope ships.

    Raises:
        AttnscopeError: the file is missing, no JSON, or a row is incomplete.

    Example:
        >>> sorted({row.source for row in read_published()})
        ['2410.10781', '2512.22213', '2601.22966']
    """
    file = data_path("published/sinks.json") if path is None else Path(path)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
        return tuple(Published.model_validate(row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise AttnscopeError(f"published numbers {file}", found=found, expected="complete rows") from error


def model_name(model_id: str) -> str:
    """Return what a model is called, from its hub id, its folder or its place in the hub's cache.

    Example:
        >>> model_name("Qwen/Qwen3-4B-Base"), model_name("/data/gpt2-xl/")
        ('Qwen3-4B-Base', 'gpt2-xl')
        >>> model_name("/home/me/hub/models--Qwen--Qwen3-4B-Base/snapshots/1a2b")
        'Qwen3-4B-Base'
    """
    parts = [part for part in model_id.replace("\\", "/").split("/") if part]
    cached = next((part for part in parts if part.startswith("models--")), None)
    return cached.split("--")[-1] if cached else parts[-1] if parts else model_id


def rows_for(rows: Iterable[Published], claim: str, model_id: str) -> tuple[Published, ...]:
    """Return what is published of a claim for a model, by its name without regard to case.

    Example:
        >>> len(rows_for(read_published(), "sink-rate", "mistralai/Mistral-7B-v0.1"))
        3
        >>> rows_for(read_published(), "sink-rate", "mistralai/Mistral-7B-Instruct-v0.1")
        ()
    """
    name = model_name(model_id).lower()
    return tuple(row for row in rows if row.claim == claim and name in {known.lower() for known in row.models})


def names_of(rows: Sequence[Published], claim: str) -> list[str]:
    """Return the models for which a claim has published numbers, each by its first name."""
    return list(dict.fromkeys(row.models[0] for row in rows if row.claim == claim))
