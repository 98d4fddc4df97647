"""FrequencyReport: which RoPE chunks of every head find its keys, and how well they choose them (FASA, 2602.03152)."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .model_info import ModelInfo
from .report import Provenance, read_json
from .sink_report import EstimateOrMissing

FREQUENCY_SCHEMA_VERSION: Final = 1

DOMINANT = 0.15
"""A chunk is dominant in a head where its agreement exceeds this, strict (2602.03152)."""
Pairing = Literal["rotate_half", "interleaved", "adjacent"]
"""How dimensions pair: `rotate_half` (i, i + d/2) and `interleaved` (2i, 2i + 1) are the model's own; `adjacent` is
(2i, 2i + 1) in a model that turns other pairs, as the released code of FASA has it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Wavelengths(_Frozen):
    """What a full turn of every chunk is long, in the layers that share it."""

    layers: tuple[int, ...]
    tokens: tuple[float | None, ...] = Field(
        description="2π over the chunk's frequency; infinite for dimensions that never turn; None where the pairing "
        "is not the model's own"
    )


class HeadChunks(_Frozen):
    """What each chunk of one query head finds alone."""

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    agreement: tuple[float | None, ...] = Field(
        description="contextual agreement of every chunk at `budget`, 0..1; None in a layer without RoPE"
    )
    dominant: tuple[int, ...] = Field(description="chunks in order of agreement, as many as the largest of `sizes`")
    low_frequency_share: float | None = Field(
        description="share of the agreement above chance in chunks that turn less than once in the prompt, 0..1; None "
        "where no chunk is above chance or wavelengths are unknown"
    )


class Choice(_Frozen):
    """How many of a head's top K keys one method picks as its K keys, mean over heads, on held-out prompts."""

    method: str
    chunks: int | None = Field(description="chunks that it uses; None for a method without chunks")
    budget: int = Field(ge=1, description="K, keys")
    agreement: EstimateOrMissing


class Margin(_Frozen):
    """Agreement of the dominant chunks minus that of a baseline, on the same queries."""

    chunks: int
    baseline: str
    budget: int
    difference: EstimateOrMissing


class TaskOverlap(_Frozen):
    """How much of the dominant chunks two tasks share, mean over heads; a task with itself: between halves of it."""

    task: str
    other: str
    overlap: float | None = Field(description="|A ∩ B| / N, 0..1; None where a task has too few prompts")
    chance: float = Field(description="the same for two random sets of N: N over the number of chunks")


class PublishedChoice(_Frozen):
    """A figure of the paper, at 256 keys and 64 chunks a head."""

    method: str
    percent: float


class FrequencyReport(_Frozen):
    """Frequency chunks of one model."""

    schema_version: Literal[1] = FREQUENCY_SCHEMA_VERSION
    model: ModelInfo
    pairing: Pairing
    rotary_dims: int = Field(description="dimensions of a head that RoPE turns")
    n_chunks: int = Field(description="pairs of dimensions a head, those that never turn included")
    rotary_layers: tuple[int, ...]
    wavelengths: tuple[Wavelengths, ...]
    context: int = Field(description="tokens of the longest prompt")
    budgets: tuple[int, ...]
    budget: int = Field(description="the budget at which chunks are ranked")
    queries: int = Field(description="sampled a prompt, at most")
    sizes: tuple[int, ...] = Field(description="numbers of dominant chunks that are tried")
    n_prompts: int = Field(description="that chunks are ranked on")
    n_held_out: int = Field(description="that choices are tried on; none of the others")
    n_tokens: int
    chance: float | None = Field(description="agreement of random keys at `budget`, mean; None if nothing was measured")
    heads: tuple[HeadChunks, ...]
    dominant_share: float | None = Field(description="share of all chunks of all heads above the threshold")
    dominant_threshold: float = DOMINANT
    choices: tuple[Choice, ...]
    margins: tuple[Margin, ...]
    tasks: tuple[str, ...]
    overlap_size: int = Field(description="N of the overlaps")
    overlaps: tuple[TaskOverlap, ...]
    published: tuple[PublishedChoice, ...]
    provenance: Provenance
    notes: tuple[str, ...] = ()

    def choice(self, method: str, budget: int | None = None) -> Choice | None:
        """Return one method's agreement at a budget (the ranking's where none is given), or None."""
        wanted = self.budget if budget is None else budget
        return next((one for one in self.choices if (one.method, one.budget) == (method, wanted)), None)

    def to_json(self) -> str:
        """Return the report as JSON text; `FrequencyReport.from_json` reads the identical report back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "frequency report") -> FrequencyReport:
        """Read a report.

        Raises:
            ReportError: not JSON, not a frequency report, or written by a newer version.
        """
        return read_json(cls, text, where, "a frequency report", FREQUENCY_SCHEMA_VERSION)
