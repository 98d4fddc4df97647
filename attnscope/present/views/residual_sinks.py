"""Residual sink dimensions: what every norm reads, rescaling against contribution, interventions, quantisation."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.report import Missing
from ...core.sink_report import MassiveActivation, NormRead, ResidualSinkDimension, ResidualSinks, SinkReport
from .effects import Effect
from .points import point

INTERVENTIONS = {
    "mean": "set to its mean",
    "zero": "set to 0",
    "clamp": "clamped",
    "direct_zero": "direct path alone set to 0",
    "denom_zero": "left out of the denominator",
}
_ORDER = {"attention": 0, "mlp": 1, "final": 2}


@dataclass(frozen=True)
class LossBar:
    """One loss, nats a token; `low` and `high` are the range over random draws."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ResidualSinkView:
    """All that is shown of the residual sink dimensions.

    Attributes:
        reads: what every norm reads, in the order of the forward pass.
        names: of the reads.
        effects: interventions with their controls.
        unmeasured: interventions that gave no loss, with the reason.
        bars: losses under quantisation; empty where it was not measured.
    """

    dimensions: tuple[ResidualSinkDimension, ...]
    reads: tuple[NormRead, ...]
    names: tuple[str, ...]
    massive: tuple[MassiveActivation, ...]
    massive_rule: str
    logits_direct: float | None
    effects: tuple[Effect, ...]
    unmeasured: tuple[str, ...]
    bars: tuple[LossBar, ...]


def residual_sink_view(report: SinkReport) -> ResidualSinkView | Missing:
    """Return the residual sinks, or why there are none."""
    found = report.residual_sinks
    if isinstance(found, Missing):
        return found
    reads = tuple(sorted(found.reads, key=lambda read: (read.read == "final", read.layer, _ORDER.get(read.read, 3))))
    return ResidualSinkView(
        dimensions=tuple(sorted(found.dimensions, key=lambda item: -item.score)),
        reads=reads,
        names=tuple("final" if read.read == "final" else f"{read.read} {read.layer}" for read in reads),
        massive=tuple(sorted(found.massive, key=lambda item: -abs(item.value))),
        massive_rule=f"|x| above {found.massive_floor:g} and at least {found.massive_ratio:g} × the median |x|",
        logits_direct=found.logits_direct,
        effects=tuple(_effects(found)),
        unmeasured=tuple(
            f"{INTERVENTIONS[item.intervention]}: {item.loss_change.reason}"
            for item in found.interventions
            if isinstance(item.loss_change, Missing)
        ),
        bars=tuple(_bars(found)),
    )


def _effects(found: ResidualSinks) -> list[Effect]:
    effects = []
    for item in found.interventions:
        if isinstance(item.loss_change, Missing):
            continue
        change = point(item.loss_change)
        controls = (("random dimensions", item.control_changes),)
        name = INTERVENTIONS[item.intervention]
        effects.append(Effect(name, item.loss_change.value, change.low, change.high, controls))
    return effects


def _bars(found: ResidualSinks) -> list[LossBar]:
    item = found.quantisation
    if item is None:
        return []
    bars = [
        LossBar("unquantised", item.loss),
        LossBar("W4A4", item.quantised),
        LossBar("sink dimensions apart", item.sinks_apart),
    ]
    if draws := item.random_apart:
        bars.append(LossBar("random dimensions apart", sum(draws) / len(draws), min(draws), max(draws)))
    return bars
