"""CircuitReport: what each unit does for each task, and what is lost without the circuits made of them."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .circuit_parts import (
    FALSE_DISCOVERY,
    Circuit,
    CircuitDrop,
    CircuitOverlap,
    CircuitQuality,
    CircuitTask,
    Dissociation,
    Edge,
    FaithfulnessCurve,
    LevelResult,
    Rule,
    Selectivity,
    SubsetTest,
    Transfer,
    UnitDrop,
    UnitDropOrMissing,
    UnitEffect,
    Verdict,
)
from .model_info import ModelInfo
from .report import Provenance, read_json

CIRCUIT_SCHEMA_VERSION: Final = 1


class CircuitReport(BaseModel):
    """What every unit of one model does for each task, and the circuits made of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    schema_version: Literal[1] = CIRCUIT_SCHEMA_VERSION
    model: ModelInfo
    tasks: tuple[CircuitTask, ...] = Field(min_length=1)
    levels: tuple[LevelResult, ...]
    circuits: tuple[Circuit, ...] = ()
    dissociations: tuple[Dissociation, ...] = ()
    curves: tuple[CircuitDrop, ...] = ()
    faithfulness: tuple[FaithfulnessCurve, ...] = ()
    quality: tuple[CircuitQuality, ...] = ()
    overlaps: tuple[CircuitOverlap, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    edges: tuple[Edge, ...] = ()
    edge_method: str | None = Field(default=None, description="what scored the edges, as eap-ig")
    missing: dict[str, str] = Field(default={}, description="name of a part above -> why it is not there")
    provenance: Provenance
    notes: tuple[str, ...] = ()

    def level(self, name: str) -> LevelResult | None:
        """Return one level's effects, or None where they were not measured."""
        return next((item for item in self.levels if item.level == name), None)

    def to_json(self) -> str:
        """Return the report as JSON text; `CircuitReport.from_json` reads the identical report back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "circuit report") -> CircuitReport:
        """Read a report.

        Raises:
            ReportError: not JSON, not a circuit report, or written by a newer version.
        """
        return read_json(cls, text, where, "a circuit report", CIRCUIT_SCHEMA_VERSION)


__all__ = [
    "CIRCUIT_SCHEMA_VERSION",
    "FALSE_DISCOVERY",
    "CircuitReport",
    "Circuit",
    "CircuitDrop",
    "CircuitOverlap",
    "CircuitQuality",
    "CircuitTask",
    "Dissociation",
    "Edge",
    "FaithfulnessCurve",
    "LevelResult",
    "Rule",
    "Selectivity",
    "SubsetTest",
    "Transfer",
    "UnitDrop",
    "UnitDropOrMissing",
    "UnitEffect",
    "Verdict",
]
