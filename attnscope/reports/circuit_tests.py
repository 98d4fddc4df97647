"""Build what a CircuitReport says of circuits: ablated together, beside random others, and moved to another task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..analyses.dissociation import DoubleDissociation, OneWay
from ..analyses.paired import Change, paired_change
from ..core.circuit_report import (
    CircuitDrop,
    Dissociation,
    Rule,
    Selectivity,
    Transfer,
)
from ..core.report import Interval
from ..core.sink_report import Estimate, EstimateOrMissing
from ..core.units import Level, Unit
from .retrieval import proportion
from .sinks import estimate

NO_CONTROL = "too few other units"


def share(values: np.ndarray) -> Estimate:
    """Return a mean of values in 0..1: Wilson's interval where each is 0 or 1, else a bootstrap over prompts.

    Args:
        values: `[P]`, NaN where missing, at least one measured.
    """
    values = values[~np.isnan(values)]
    if np.isin(values, (0, 1)).all():
        return proportion(values)
    return measured(values)


def measured(values: np.ndarray) -> Estimate:
    """Return the mean over prompts with its bootstrap interval.

    Args:
        values: `[P]`, at least one.
    """
    found = estimate(values, "no prompts")
    assert isinstance(found, Estimate)
    return found


def controlled(controls: np.ndarray | None) -> tuple[EstimateOrMissing, tuple[float, ...]]:
    """Return the mean over random draws, its interval over prompts, and the mean of each draw.

    Args:
        controls: `[draws, P]`; None or no draws where there was no control.
    """
    if controls is None or not len(controls):
        return estimate(np.zeros(0), NO_CONTROL), ()
    return measured(np.nanmean(controls, axis=0)), tuple(float(v) for v in np.nanmean(controls, axis=1))


def of_change(change: Change) -> Estimate:
    """Return a change as an estimate."""
    interval = None if np.isnan(change.low) else Interval(low=change.low, high=change.high)
    return Estimate(value=change.value, n=change.n, interval=interval)


def circuit_drop(
    level: Level,
    rule: Rule,
    circuit: str,
    task: str,
    units: Sequence[Unit],
    whole: np.ndarray,
    ablated: np.ndarray,
    controls: np.ndarray | None,
    matched: bool = True,
) -> CircuitDrop:
    """Return the accuracy on one task without one circuit.

    Args:
        level, rule, circuit: of the circuit; `circuit` is the task it was chosen for.
        task: that was measured.
        units: of the circuit.
        whole: `[P]` right answers of the untouched model, 0..1.
        ablated: `[P]` without the circuit.
        controls: `[draws, P]` without as many random others.
        matched: whether every draw took units of the same layers.
    """
    control, draws = controlled(controls)
    return CircuitDrop(
        level=level,
        rule=rule,
        circuit=circuit,
        task=task,
        units=tuple(map(str, units)),
        accuracy=share(ablated),
        change=of_change(paired_change(whole, ablated)),
        control=control,
        control_draws=draws,
        layer_matched=matched,
    )


def dissociation(
    level: Level,
    rule: Rule,
    ablation: str,
    tasks: tuple[str, str],
    units: tuple[Sequence[Unit], Sequence[Unit]],
    found: DoubleDissociation,
    matched: bool = True,
) -> Dissociation:
    """Return a double dissociation.

    Args:
        level, rule, ablation: of both circuits.
        tasks: that the first and the second circuit were chosen for.
        units: of the first and the second circuit.
        found: of `analyses.dissociation.double_dissociation`, in the same order.
        matched: whether every random draw took units of the same layers.
    """

    def one(i: int, item: OneWay) -> Selectivity:
        return Selectivity(
            circuit=tasks[i],
            other=tasks[1 - i],
            units=tuple(map(str, units[i])),
            own_drop=of_change(item.own),
            other_drop=of_change(item.other),
            delta=of_change(item.delta),
            control=item.control,
            selective=item.selective,
            certain=item.certain,
        )

    return Dissociation(
        level=level,
        rule=rule,
        ablation=ablation,
        first=one(0, found.first),
        second=one(1, found.second),
        least_drop=found.least_drop,
        most_other=found.most_other,
        layer_matched=matched,
        verdict=found.verdict,
    )


def transfer(
    edit: str,
    source: str,
    task: str,
    units: Sequence[Unit],
    before: np.ndarray,
    after: np.ndarray,
    controls: np.ndarray | None = None,
) -> Transfer:
    """Return the accuracy on a task before and after an edit taken from another (the repair experiment).

    Args:
        edit: what is changed, in words.
        source: task that the edit was taken from.
        task: that was measured.
        units: that are edited.
        before, after: `[P]` right answers, 0..1.
        controls: `[draws, P]` after the same edit at random other units.
    """
    change = paired_change(before, after)
    control, draws = controlled(controls)
    return Transfer(
        edit=edit,
        source=source,
        task=task,
        units=tuple(map(str, units)),
        before=share(before),
        after=share(after),
        change=of_change(change),
        p=None if np.isnan(change.p) else change.p,
        control=control,
        control_draws=draws,
    )
