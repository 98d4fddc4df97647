"""Build the parts of a CircuitReport from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..analyses.circuits import Effects
from ..analyses.compare import correlate
from ..core.circuit_report import (
    FALSE_DISCOVERY,
    Circuit,
    CircuitTask,
    LevelResult,
    Rule,
    UnitDrop,
    UnitDropOrMissing,
    UnitEffect,
)
from ..core.errors import StatisticsError
from ..core.model_info import ModelInfo
from ..core.report import Interval, Missing
from ..core.sink_report import Estimate
from ..core.units import Level, Unit, units_of
from .circuit_tests import share
from .sinks import estimate

NOT_MEASURED = "this unit was not ablated"


def circuit_task(
    name: str,
    right: np.ndarray | None,
    metric: np.ndarray,
    corrupt: np.ndarray | None = None,
    lengths: Sequence[int] = (),
) -> CircuitTask:
    """Return how the untouched model does a task.

    Args:
        name: of the task.
        right: `[P]` right answers, 0..1; None where the task has no single right answer.
        metric: `[P]` on clean prompts.
        corrupt: `[P]` on corrupt prompts.
        lengths: tokens of each prompt.
    """
    no_corrupt = "no corrupt prompts were run"
    return CircuitTask(
        name=name,
        n_prompts=len(metric),
        length=lengths[0] if len(set(lengths)) == 1 else None,
        accuracy=Missing(reason="right answers were not counted") if right is None else share(right),
        metric=estimate(metric, "the metric was not measured"),
        corrupt=estimate(np.zeros(0) if corrupt is None else corrupt, no_corrupt),
    )


def level_result(
    info: ModelInfo,
    level: Level,
    found: Mapping[str, Effects],
    *,
    metric: str,
    ablation: str,
    metric_units: str = "1",
    screen: str | None = None,
    screened: Mapping[str, np.ndarray] | None = None,
    gradient_at: str | None = None,
    forwards: float | None = None,
    test: str = "sign-flip",
    n_selection: int | None = None,
    scores: Mapping[str, np.ndarray] | None = None,
    reason: str = NOT_MEASURED,
    keep: int | None = None,
) -> LevelResult:
    """Return the effects of one level's units.

    Args:
        info: the model.
        level: its arrays' shapes are those of `core.units.units_of`.
        found: task → exact effects; NaN where a unit was not measured.
        metric: name of the metric, and `metric_units` its units.
        ablation: mode.
        screen: name of the screen, with `screened` task → its estimates of the effects and where its gradient was
            taken (`gradient_at`).
        forwards: cost in forward-equivalents.
        test: of the p-values.
        n_selection: prompts a task that the effects were measured on; None where they are all of them.
        scores: other scores, name → `[prompts, units...]` or `[units...]`.
        reason: why units were not measured.
        keep: units to hold, those with the largest |effect| (or |screen| where there is none) on any task; None
            holds all.

    Raises:
        StatisticsError: arrays of different shapes, or no task.
    """
    tables = [item.mean for item in found.values()] + list((screened or {}).values())
    if not found or any(table.shape != tables[0].shape for table in tables):
        shapes = [table.shape for table in tables]
        raise StatisticsError(f"effects at level {level}", found=shapes, expected="one shape, and at least one task")
    units = units_of(info, level, tables[0].shape)
    flat = {task: _flat(item) for task, item in found.items()}
    exact = np.any([~np.isnan(item.mean) for item in flat.values()], axis=0)
    rows = _kept([item.mean for item in flat.values()], [np.ravel(t) for t in (screened or {}).values()], keep)
    return LevelResult(
        level=level,
        metric=metric,
        metric_units=metric_units,
        ablation=ablation,
        screen=screen,
        gradient_at=gradient_at,  # type: ignore[arg-type]
        n_units=len(units),
        n_exact=int(exact.sum()),
        n_shown={task: int((item.q <= FALSE_DISCOVERY).sum()) for task, item in flat.items()},
        agreement={task: _agreement(table, found[task].mean) for task, table in (screened or {}).items()},
        forwards=forwards,
        test=test,
        n_selection=n_selection,
        units=tuple(
            UnitEffect(
                unit=str(units[i]),
                module=units[i].module,
                layer=units[i].layer,
                index=units[i].index,
                effects={task: _drop(item, i, reason) for task, item in flat.items()},
                screened={
                    t: float(np.ravel(v)[i]) for t, v in (screened or {}).items() if not np.isnan(np.ravel(v)[i])
                },
                scores={name: _score(values, tables[0].shape, i) for name, values in (scores or {}).items()},
            )
            for i in rows
        ),
    )


def chosen_circuit(task: str, level: Level, rule: Rule, units: Sequence[Unit], n_selection: int) -> Circuit:
    """Return a circuit by the names of its units, in the order of the ranking."""
    return Circuit(task=task, level=level, rule=rule, units=tuple(map(str, units)), n_selection=n_selection)


def named(info: ModelInfo, level: Level, shape: tuple[int, ...], indices: Sequence[tuple[int, ...]]) -> list[Unit]:
    """Return the units at some indices of an array of effects.

    Args:
        info: the model.
        level: of the array.
        shape: of the array.
        indices: as `analyses.circuits.ranked` gives them.
    """
    units = units_of(info, level, shape)
    return [units[int(np.ravel_multi_index(index, shape))] for index in indices]


def _flat(item: Effects) -> Effects:
    return Effects(*(np.ravel(getattr(item, name)) for name in ("mean", "low", "high", "p", "q", "n")))


def _kept(effects: Sequence[np.ndarray], screens: Sequence[np.ndarray], keep: int | None) -> list[int]:
    n = len(effects[0])
    if keep is None or keep >= n:
        return list(range(n))
    exact = np.nan_to_num(np.abs(np.stack(effects)), nan=-1.0).max(0)
    weak = np.nan_to_num(np.abs(np.stack(screens)), nan=-1.0).max(0) if len(screens) else np.full(n, -1.0)
    order = np.lexsort((-weak, -exact))[:keep]
    return sorted(int(i) for i in order)


def _drop(item: Effects, i: int, reason: str) -> UnitDropOrMissing:
    if np.isnan(item.mean[i]):
        return Missing(reason=reason)
    interval = None if np.isnan(item.low[i]) else Interval(low=float(item.low[i]), high=float(item.high[i]))
    p, q = (None if np.isnan(v[i]) else float(v[i]) for v in (item.p, item.q))
    return UnitDrop(value=float(item.mean[i]), n=int(item.n[i]), interval=interval, p=p, q=q)


def _score(values: np.ndarray, shape: tuple[int, ...], i: int) -> Estimate | Missing:
    table = values[None] if values.shape == shape else values
    return estimate(table.reshape(len(table), -1)[:, i], "not measured for this unit")


def _agreement(screen: np.ndarray, exact: np.ndarray) -> float | None:
    if (~(np.isnan(screen) | np.isnan(exact))).sum() < 3:
        return None
    return correlate(screen, exact).spearman
