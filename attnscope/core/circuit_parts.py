"""The parts of a CircuitReport: tasks, effects of units, circuits and what is lost without them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from .report import Interval, Missing
from .sink_report import Estimate, EstimateOrMissing
from .units import Level, Module

FALSE_DISCOVERY: Final = 0.05
"""An effect counts as shown where its q-value is at most this."""
Rule = Literal["effect", "selective"]
"""`effect` ranks units by their effect on the circuit's task; `selective` does so among the units whose effect on the
other task is at most a fifth of it."""
Verdict = Literal["double", "first only", "second only", "none"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class CircuitTask(_Frozen):
    """One task, as the untouched model does it."""

    name: str
    n_prompts: int = Field(ge=1)
    length: int | None = Field(default=None, description="tokens a prompt; None where prompts differ")
    accuracy: EstimateOrMissing = Field(description="share of right answers, 0..1")
    metric: EstimateOrMissing = Field(description="the metric of the effects, on clean prompts")
    corrupt: EstimateOrMissing = Field(description="the same on corrupt prompts")


class UnitDrop(_Frozen):
    """Mean drop of the metric over prompts when one unit is ablated; negative where ablating it helps."""

    kind: Literal["drop"] = "drop"
    value: float
    n: int = Field(ge=1, description="prompts")
    interval: Interval | None = None
    p: float | None = Field(default=None, description="two-sided, paired over prompts")
    q: float | None = Field(default=None, description="Benjamini-Hochberg over all units of the level and task")


UnitDropOrMissing = Annotated[UnitDrop | Missing, Field(discriminator="kind")]


class UnitEffect(_Frozen):
    """One unit's effect on every task."""

    unit: str = Field(description="L3H2, attention 3, mlp 3 or L3N77")
    module: Module
    layer: int = Field(ge=0)
    index: int = Field(ge=0, description="head or neuron; 0 for a block's attention or MLP")
    effects: dict[str, UnitDropOrMissing] = Field(description="by task, measured exactly")
    screened: dict[str, float] = Field(default={}, description="by task, the screen's estimate of the effect")
    scores: dict[str, EstimateOrMissing] = Field(default={}, description="other scores, as copying or importance")


class LevelResult(_Frozen):
    """Effects of the units of one level."""

    level: Level
    metric: str
    metric_units: str = Field(default="1", description="1 for shares")
    ablation: str = Field(description="zero, mean, resample, …")
    screen: str | None = Field(description="as atp; None where every unit was measured exactly")
    gradient_at: Literal["clean", "corrupt"] | None = None
    n_units: int = Field(ge=1, description="units of the model at this level")
    n_exact: int = Field(ge=0, description="units measured exactly")
    n_shown: dict[str, int] = Field(
        default={}, description="by task, units measured exactly whose q-value is at most 0.05"
    )
    agreement: dict[str, float | None] = Field(
        default={}, description="by task, rank correlation of screen and exact effect over units measured exactly"
    )
    forwards: float | None = Field(default=None, description="cost in forward-equivalents of the same prompts")
    test: str = Field(default="sign-flip", description="of the p-values")
    n_selection: int | None = Field(default=None, description="prompts a task; None where they are all of them")
    units: tuple[UnitEffect, ...] = Field(description="all, or those with the largest effects")


class Circuit(_Frozen):
    """Units chosen for one task."""

    task: str
    level: Level
    rule: Rule
    units: tuple[str, ...] = Field(min_length=1, description="the first ones of the ranking, in order")
    n_selection: int = Field(ge=1, description="prompts that chose them; none of these tests the circuit")


class CircuitDrop(_Frozen):
    """Accuracy on one task without one circuit, beside as many random others."""

    level: Level
    rule: Rule
    circuit: str = Field(description="task that the circuit was chosen for")
    task: str = Field(description="task that was measured")
    units: tuple[str, ...] = Field(min_length=1)
    accuracy: Estimate = Field(description="without the circuit")
    change: Estimate = Field(description="minus the untouched model's, paired over prompts")
    control: EstimateOrMissing = Field(description="mean over draws and prompts; the interval is over prompts")
    control_draws: tuple[float, ...] = Field(default=(), description="accuracy of each draw")
    layer_matched: bool = Field(default=True, description="whether every draw took units of the same layers")


class Selectivity(_Frozen):
    """One circuit's ablation on its own task and on the other."""

    circuit: str = Field(description="task that the circuit was chosen for")
    other: str
    units: tuple[str, ...] = Field(min_length=1)
    own_drop: Estimate = Field(description="share of right answers lost on its own task")
    other_drop: Estimate
    delta: Estimate = Field(description="own minus other; prompts of the two tasks are resampled independently")
    control: tuple[tuple[float, float, float], ...] = Field(
        description="own drop, other drop and delta of each draw of random others"
    )
    selective: bool
    certain: bool | None = Field(
        description="delta's interval is above 0 and delta above that of every draw; None without either"
    )


class Dissociation(_Frozen):
    """Whether two circuits of one size serve their own tasks and not each other's."""

    level: Level
    rule: Rule
    ablation: str
    first: Selectivity
    second: Selectivity
    least_drop: float = Field(description="a selective circuit costs its own task at least this, 0..1")
    most_other: float = Field(description="and the other at most this, 0..1")
    layer_matched: bool = True
    verdict: Verdict


class FaithfulnessCurve(_Frozen):
    """f = (m(C) - m(none)) / (m(N) - m(none)) over circuit size (2504.13151)."""

    task: str
    level: Literal["head", "layer", "neuron", "edge"]
    ranking: str = Field(description="what ordered the units, as atp or exact effect")
    sizes: tuple[float, ...] = Field(min_length=1, description="shares of all units, ascending, 0..1")
    faithfulness: tuple[float | None, ...]
    cpr: float | None = Field(description="integral of f; None where f is missing or has one size")
    cmd: float | None = Field(description="integral of |1 - f|")
    control: tuple[float | None, ...] = Field(default=(), description="f of random circuits, mean over draws")


class SubsetTest(_Frozen):
    """One subset K of a circuit, ablated in the circuit and in the whole model (2211.00593)."""

    subset: str = Field(description="what K is")
    circuit: float = Field(description="metric with all but the circuit, and K, ablated")
    model: float = Field(description="metric of the model with K ablated")
    gap: float = Field(description="the distance of the two")


class CircuitQuality(_Frozen):
    """Faithfulness, completeness and minimality of one circuit (2211.00593)."""

    task: str
    level: Level
    units: tuple[str, ...] = Field(min_length=1)
    metric: str
    model: float = Field(description="metric of the untouched model, F(M)")
    circuit: float = Field(description="metric with all but the circuit ablated, F(C)")
    empty: float = Field(description="metric with everything ablated")
    faithfulness: float | None = Field(description="f; None where model and empty are equal")
    completeness: tuple[SubsetTest, ...] = ()
    minimality: dict[str, float | None] = Field(default={}, description="by unit, largest change over the sets tried")


class CircuitOverlap(_Frozen):
    """What two circuits share, against chance; both laws are exact."""

    first: str
    second: str
    level: Level
    n_units: int
    sizes: tuple[int, int]
    shared: tuple[str, ...]
    jaccard: float | None
    expected: float
    p: float = Field(description="probability of at least so many by chance")
    layer_expected: float = Field(description="by chance with as many units in each layer as the circuits have")
    layer_p: float


class Transfer(_Frozen):
    """Accuracy on one task before and after an edit taken from another."""

    edit: str = Field(description="what is changed, in words")
    source: str = Field(description="task that the edit was taken from")
    task: str = Field(description="task that was measured")
    units: tuple[str, ...]
    before: Estimate
    after: Estimate
    change: Estimate = Field(description="after minus before, paired over prompts")
    p: float | None = None
    control: EstimateOrMissing = Field(description="the same edit at random other units; mean over draws and prompts")
    control_draws: tuple[float, ...] = ()


class Edge(_Frozen):
    """One edge of a circuit's graph; nodes are units, `embedding` and `logits`."""

    task: str
    source: str
    target: str
    score: float
