"""HeadReport: the versioned file format that says what every head does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ReportError, UnknownHeadError
from .ids import HeadId
from .model_info import ModelInfo
from .names import LabelName, ScoreName

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION: Final = 1
_Report = TypeVar("_Report", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Frozen):
    """An interval around a measured value."""

    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)
    method: str = "bootstrap over prompts"


class Measured(_Frozen):
    """A value that was measured on `n` prompts, or computed from the weights alone (`n` 0)."""

    kind: Literal["measured"] = "measured"
    value: float
    n: int = Field(ge=0, description="prompts; 0 for a value computed from the weights")
    units: str
    prompt_set: str
    interval: Interval | None = None


class Missing(_Frozen):
    """A value that was not measured, and why; never written as 0."""

    kind: Literal["missing"] = "missing"
    reason: str


Evidence = Annotated[Measured | Missing, Field(discriminator="kind")]


class Label(_Frozen):
    """One thing that a head does, with the rule that said so."""

    name: LabelName
    rule: str
    score: str | None = None
    value: float | None = None
    threshold: float | None = None
    comparison: Literal[">", ">=", "<", "<="] | None = None
    citation: str | None = None


class HeadRecord(_Frozen):
    """Everything known about one query head."""

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    kv_head: int = Field(ge=0)
    scores: dict[ScoreName, Evidence]
    labels: tuple[Label, ...] = Field(min_length=1)

    @property
    def id(self) -> HeadId:
        """The head's name."""
        return HeadId(self.layer, self.head)

    def has(self, label: str) -> bool:
        """Whether the head carries a label."""
        return any(item.name == label for item in self.labels)


class KVHeadRecord(_Frozen):
    """What a sparse decoder may do with one KV head."""

    layer: int = Field(ge=0)
    kv_head: int = Field(ge=0)
    role: Literal["full", "streaming"]
    reason: str


class DecodePlan(_Frozen):
    """Roles of all KV heads: `full` keeps the whole cache, `streaming` keeps sink tokens and a recent window."""

    rule: str
    sink_tokens: int = Field(ge=0)
    recent_tokens: int = Field(ge=1)
    full_fraction: float = Field(ge=0, le=1, description="share of KV heads that stay full")
    kv_heads: tuple[KVHeadRecord, ...]


class SinkToken(_Frozen):
    """A position that receives much attention from a whole layer."""

    layer: int
    position: int
    token: str
    token_id: int
    prompts: int = Field(ge=1, description="prompts in which this (layer, position, token) is a sink")
    received: float = Field(description="mean attention received per later query, averaged over heads")


class OutlierDimension(_Frozen):
    """A residual-stream dimension that is large on most tokens."""

    dimension: int
    mean_abs: float = Field(description="mean |x| over tokens after the first, and over block outputs")
    ratio: float = Field(description="mean_abs over the median dimension's")


class CausalCheck(_Frozen):
    """Ablate all heads of one label together, beside as many random other heads of the same layers."""

    label: LabelName
    metric: str
    heads: tuple[str, ...]
    ablation: str
    baseline: Measured
    ablated: Measured
    random_control: Measured
    n_random_draws: int = Field(ge=1)
    control: str


class PromptSet(_Frozen):
    """A prompt set that scores were measured on."""

    name: str
    n_prompts: int
    n_tokens: int
    max_length: int
    fingerprint: str = Field(description="SHA-256 of all token ids")
    parameters: dict[str, str | int | float | bool | None]


class Provenance(_Frozen):
    """How the report was made."""

    attnscope_version: str
    created: str
    command: str | None
    seed: int
    implementation: str = Field(description="kernel implementation that ran")
    libraries: dict[str, str]
    prompt_sets: tuple[PromptSet, ...]
    read_sites: dict[str, str]
    bos_policy: str
    notes: tuple[str, ...] = ()


class HeadReport(_Frozen):
    """What each head of one model does.

    Example:
        >>> import attnscope
        >>> report = attnscope.open_run("runs/pocket").report   # doctest: +SKIP
        >>> report.heads_labelled("induction")                  # doctest: +SKIP
        [L3H1, L4H6]
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelInfo
    records: tuple[HeadRecord, ...]
    decode: DecodePlan
    sink_rate: dict[int, Evidence] = Field(description="percent of heads, by prompt length in tokens (2410.10781)")
    sinks: tuple[SinkToken, ...]
    outlier_dimensions: tuple[OutlierDimension, ...]
    causal_checks: tuple[CausalCheck, ...] = ()
    rules: tuple[dict[str, str | float | None], ...] = Field(description="the taxonomy's table, as it was applied")
    provenance: Provenance

    def __getitem__(self, head: HeadId | str) -> HeadRecord:
        """Return one head's record.

        Raises:
            UnknownHeadError: the model has no such head.
        """
        wanted = HeadId.parse(head) if isinstance(head, str) else head
        for record in self.records:
            if record.id == wanted:
                return record
        raise UnknownHeadError(f"head {wanted}", expected=f"a head of {self.model.model_id}")

    def heads_labelled(self, label: str) -> list[HeadId]:
        """Return every head that carries a label, in order.

        Raises:
            UnknownHeadError: there is no such label.
        """
        from .names import LABELS

        if label not in LABELS:
            raise UnknownHeadError(f"label {label!r}", expected=f"one of {', '.join(LABELS)}")
        return [record.id for record in self.records if record.has(label)]

    @property
    def heads(self) -> pd.DataFrame:
        """One row a query head: layer, head, kv_head, name, labels, role and every score (NaN where missing)."""
        import pandas as pd

        roles = {(item.layer, item.kv_head): item.role for item in self.decode.kv_heads}
        rows = []
        for record in self.records:
            row: dict[str, object] = {
                "name": str(record.id),
                "layer": record.layer,
                "head": record.head,
                "kv_head": record.kv_head,
                "labels": ",".join(label.name for label in record.labels),
                "decode_role": roles[record.layer, record.kv_head],
            }
            for score, evidence in record.scores.items():
                measured = evidence if isinstance(evidence, Measured) else None
                row[score] = measured.value if measured else float("nan")
                if measured and measured.interval:
                    row[f"{score}_low"], row[f"{score}_high"] = measured.interval.low, measured.interval.high
            rows.append(row)
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """Return the report as JSON text; `HeadReport.from_json` reads the identical report back."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "report") -> HeadReport:
        """Read a report.

        Raises:
            ReportError: not JSON, not a report, or written by a newer version.
        """
        return read_json(cls, text, where, "a head report", SCHEMA_VERSION)


def read_json(kind: type[_Report], text: str, where: str, what: str, newest: int) -> _Report:
    """Read a versioned report of a kind.

    Args:
        kind: its pydantic class.
        text: JSON.
        where: names the text in errors.
        what: names the kind in errors.
        newest: the newest version that can be read.

    Raises:
        ReportError: not JSON, not such a report, or written by a newer version.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ReportError(where, found=f"no JSON ({error})", expected=what) from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > newest:
        fix = "Upgrade attnscope to read it."
        raise ReportError(where, found=f"schema version {version}", expected=f"at most {newest}", fix=fix)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "top level"
        raise ReportError(f"{where}, at {place}", found=first["msg"], expected=what) from error


def schema() -> dict[str, object]:
    """Return the JSON Schema of the report format; the committed copy is `schema_path()`."""
    return HeadReport.model_json_schema()


def schema_path() -> Path:
    """Return the committed JSON Schema file."""
    return Path(__file__).with_name("head_report.schema.json")
