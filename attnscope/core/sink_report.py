"""SinkReport: what a model's attention sinks and residual sinks are, who writes them, and what they are for."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .model_info import ModelInfo
from .report import Interval, Missing, Provenance, read_json

SINK_SCHEMA_VERSION: Final = 1

SinkKind = Literal["primary", "secondary", "attention only", "short-lived"]
"""`primary` and `secondary` by the residual stream; `attention only` receives attention without a sink's residual;
`short-lived` points along the primary direction for fewer blocks than a sink."""
Module = Literal["embedding", "attention", "mlp"]
Intervention = Literal["mean", "zero", "clamp", "direct_zero", "denom_zero"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Estimate(_Frozen):
    """A value over `n` prompts or sinks, with its interval where n allows one."""

    kind: Literal["estimate"] = "estimate"
    value: float
    n: int = Field(ge=1)
    interval: Interval | None = None


EstimateOrMissing = Annotated[Estimate | Missing, Field(discriminator="kind")]


class Contribution(_Frozen):
    """What one module added to a sink along its own direction, at the first block whose output is a sink."""

    module: Module
    layer: int = Field(description="block; -1 for the embedding")
    along: float = Field(
        description="projection on the unit vector of the sink's residual; all modules sum to its norm"
    )
    share: float = Field(description="along over the sink's norm; may be negative or above 1")


class Writer(_Frozen):
    """The module that contributed most to a sink."""

    module: Module
    layer: int
    share: float = Field(description="of the sink's norm")
    cosine_to_direction: float = Field(description="cosine of its output to the primary direction, -1..1")
    cosine_to_primary_write: float | None = Field(
        description="cosine of its output here to its output at the primary sink (2512.22213), -1..1"
    )
    output_norm: float
    neurons: tuple[int, ...] | None = Field(
        description="smallest set of MLP neurons that gives 90% of the write; None without a single down projection"
    )


class ResidualEvidence(_Frozen):
    """A sink as the residual stream shows it."""

    kind: Literal["found"] = "found"
    first_layer: int = Field(ge=0, description="first block whose output points along the primary direction")
    lifetime: int = Field(ge=1, description="how many block outputs in a row do")
    norm: float = Field(description="median l2 norm over the lifetime")
    norm_ratio: float = Field(description="norm over the median token's, median over the lifetime")
    cosine: float = Field(description="mean |cosine| to the primary position over the lifetime, 0..1")
    writer: Writer | None = None
    contributions: tuple[Contribution, ...] = ()


class AttentionEvidence(_Frozen):
    """A sink as attention shows it."""

    kind: Literal["found"] = "found"
    share: float = Field(
        description="received attention a query, mean over heads, in the layer where it is largest, 0..1"
    )
    layer: int = Field(description="that layer")
    share_by_layer: tuple[float | None, ...]
    sink_heads: float = Field(description="fraction of all heads that give it more than 0.3 a query, 0..1")


ResidualOrMissing = Annotated[ResidualEvidence | Missing, Field(discriminator="kind")]
AttentionOrMissing = Annotated[AttentionEvidence | Missing, Field(discriminator="kind")]


class Sink(_Frozen):
    """One sink: a position of one prompt, with what residual stream and attention say of it apart."""

    prompt: int = Field(ge=0)
    position: int = Field(ge=0)
    token: str
    token_id: int
    kind: SinkKind
    level: int | None = Field(description="index into `levels`; None without residual evidence")
    residual: ResidualOrMissing
    attention: AttentionOrMissing


class SinkLevel(_Frozen):
    """Sinks that start at one block and live equally long (2512.22213)."""

    first_layer: int
    lifetime: int
    kind: SinkKind
    n_sinks: int = Field(ge=1)
    n_prompts: int = Field(ge=1)
    tokens: tuple[tuple[str, int], ...] = Field(description="most frequent tokens with their counts")
    norm: float = Field(description="median over its sinks")
    share_by_layer: tuple[float | None, ...] = Field(description="attention share a sink, mean over its sinks")


class ResidualTrace(_Frozen):
    """How the residual stream of one level's sinks runs through the model, or that of all other tokens."""

    level: int | None = Field(description="index into `levels`; None for tokens that are no sinks")
    n: int = Field(ge=1, description="positions, over all prompts")
    norm: tuple[float, ...] = Field(description="l2 norm of each block's output, median over the positions")
    cosine: tuple[float | None, ...] = Field(
        description="|cosine| of each block's output to the primary sink's, 0..1, median over the positions "
        "of prompts with a primary sink; None without one"
    )


class HeadService(_Frozen):
    """How one query head uses sinks."""

    layer: int
    head: int
    primary_share: EstimateOrMissing = Field(description="of a query's attention, on primary sinks, 0..1")
    secondary_share: EstimateOrMissing
    dormant: EstimateOrMissing = Field(description="fraction of queries with most of their attention on sinks, 0..1")
    dormant_by_prompt: tuple[float | None, ...] = Field(
        default=(), description="the same of each prompt, in order; None for a prompt of one token"
    )


class Weakening(_Frozen):
    """Primary attention share of one layer, in prompts with secondary sinks there and in prompts without."""

    layer: int
    with_secondary: EstimateOrMissing
    without_secondary: EstimateOrMissing


class CurvePoint(_Frozen):
    """One rescaling of the write that makes a sink: the norm -> score -> lifetime relation."""

    factor: float = Field(description="on the writer's output at the sink")
    norm: float = Field(description="median norm over the original lifetime")
    share: float | None = Field(
        description="attention share in the layer where it was largest, mean over sinks; None where few see them"
    )
    lifetime: float = Field(description="mean over sinks; 0 where none is left")
    loss: float = Field(description="mean next-token loss, nats a token")


class WriteTest(_Frozen):
    """Removing one level's write, beside random writes of the same norm."""

    level: int
    layer: int
    module: Module
    curve: tuple[CurvePoint, ...]
    neurons_removed: int | None = Field(
        description="size of the minimal neuron set that was zeroed; None if not tested"
    )
    loss_without_neurons: float | None
    loss_change: Estimate = Field(description="loss without the write minus loss, nats a token, over prompts")
    control_changes: tuple[float, ...] = Field(
        description="the same for random writes of the same norm that replace the write at the sinks"
    )
    random_positions_changes: tuple[float, ...] = Field(
        description="the same for removing the module's output at as many random other positions"
    )


class NormRead(_Frozen):
    """What one norm reads, on every token but the first."""

    read: str = Field(description="attention, mlp or final")
    layer: int
    score: float = Field(description="largest over median of mean |h_j|")
    argmax: int = Field(description="dimension of the largest mean |h_j|")
    argmax_hit: float = Field(description="fraction of tokens whose largest |h_j| is that dimension, 0..1")
    peak: float = Field(description="largest |x_j| / rms(x)")
    r: float = Field(description="mean over tokens of |h_S| / |h|, S the residual sink dimensions, 0..1")
    weight: float | None = Field(
        description="largest |lambda_j| over the sink dimensions, over the largest |lambda|; None without any"
    )
    denominator: float = Field(description="mean of rms(x) / rms(x with S at 0); of deviations in a norm with a mean")
    direct: float | None = Field(
        description="share of the readers' output that comes through S: |W_S y_S| / |W y|, mean; of the logits' "
        "standard deviation at the final norm; None where no projection reads the norm"
    )
    rms: float = Field(description="measured rms of the norm's output, mean over tokens")
    bound: float | None = Field(description="the rescaling bound on it (2601.22966); None for a norm with a mean")


class ResidualSinkDimension(_Frozen):
    """A residual-stream dimension that is large on most tokens."""

    dimension: int
    score: float = Field(description="median over norm reads of mean |h_d| over the median dimension's")
    reads: int = Field(description="norm reads in which it is the largest")
    mean_abs: float
    writer: str | None = Field(description="module that adds most to it, as 'mlp 3'")
    weight: float = Field(description="median |lambda_d| over the largest |lambda| of each norm")


class MassiveActivation(_Frozen):
    """|x| above the floor and at least `ratio` times the median |x| of its hidden state (2402.17762)."""

    layer: int
    prompt: int
    position: int
    dimension: int
    value: float
    ratio: float


class InterventionEffect(_Frozen):
    """Loss under one intervention on what every norm reads, beside the same on random dimensions."""

    intervention: Intervention
    loss_change: EstimateOrMissing
    control_changes: tuple[float, ...] = Field(description="random other dimensions, as many")


class Quantisation(_Frozen):
    """W4A4, round to nearest, groups of 128: mean loss, nats a token."""

    loss: float = Field(description="unquantised")
    quantised: float
    sinks_apart: float = Field(description="with the sink dimensions multiplied in full precision")
    random_apart: tuple[float, ...] = Field(description="with as many random dimensions apart instead")


class ResidualSinks(_Frozen):
    """Residual sink dimensions and massive activations of one model."""

    kind: Literal["found"] = "found"
    dimensions: tuple[ResidualSinkDimension, ...]
    reads: tuple[NormRead, ...]
    massive: tuple[MassiveActivation, ...]
    massive_floor: float
    massive_ratio: float
    logits_direct: float | None = Field(description="share of the logits' spread through S, 0..1; None without a head")
    interventions: tuple[InterventionEffect, ...]
    quantisation: Quantisation | None = Field(
        description="None without sink dimensions, or where weights are quantised already or offloaded"
    )


ResidualSinksOrMissing = Annotated[ResidualSinks | Missing, Field(discriminator="kind")]


class SinkReport(_Frozen):
    """Attention sinks, how they form, and residual sinks of one model."""

    schema_version: Literal[1] = SINK_SCHEMA_VERSION
    model: ModelInfo
    mode: Literal["relative", "paper"]
    thresholds: dict[str, float | int | str]
    n_prompts: int
    n_tokens: int
    loss: EstimateOrMissing
    primary_layers: tuple[int, int] | None = Field(
        description="first block and lifetime of the primary sink, most prompts"
    )
    levels: tuple[SinkLevel, ...]
    traces: tuple[ResidualTrace, ...] = ()
    sinks: tuple[Sink, ...]
    heads: tuple[HeadService, ...]
    weakening: tuple[Weakening, ...]
    writes: tuple[WriteTest, ...]
    residual_sinks: ResidualSinksOrMissing
    provenance: Provenance
    notes: tuple[str, ...] = ()

    def of_kind(self, kind: SinkKind) -> list[Sink]:
        """Return the sinks of one kind, in order of prompt and position."""
        return [sink for sink in self.sinks if sink.kind == kind]

    def to_json(self) -> str:
        """Return the report as JSON text; `SinkReport.from_json` reads the identical report back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "sink report") -> SinkReport:
        """Read a report.

        Raises:
            ReportError: not JSON, not a sink report, or written by a newer version.
        """
        return read_json(cls, text, where, "a sink report", SINK_SCHEMA_VERSION)
