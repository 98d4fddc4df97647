"""Units of a circuit report: effects on every task, which circuits hold them, and effects as grids."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.circuit_report import FALSE_DISCOVERY, CircuitReport, LevelResult, UnitDrop, UnitEffect
from ...core.report import Missing
from ...core.units import Level
from ..tokens import visible
from ..wording import capital
from .points import Measure, Point, point, point_grid
from .scores import ScoreGrid

LEVEL_WORDS: dict[str, tuple[str, str]] = {
    "head": ("head", "heads"),
    "layer": ("attention or MLP", "attentions and MLPs"),
    "neuron": ("neuron", "neurons"),
    "edge": ("edge", "edges"),
}
"""How one and many units of a level read in sentences."""


MOST_NAMED = 16
"""Units that a figure names."""


@dataclass(frozen=True)
class Drop:
    """One unit's effect on one task: the mean drop of the metric, with p- and q-value where tests were made."""

    point: Point
    p: float | None = None
    q: float | None = None
    screened: float | None = None

    @property
    def shown(self) -> bool | None:
        """Whether the q-value is at most FALSE_DISCOVERY; None without one."""
        return None if self.q is None else self.q <= FALSE_DISCOVERY


@dataclass(frozen=True)
class UnitLine:
    """One unit; names are plain text.

    Attributes:
        drops: by task, in the report's order of tasks.
        chosen: tasks whose circuit holds it.
        scores: other scores, by name.
    """

    name: str
    module: str
    layer: int
    index: int
    drops: dict[str, Drop]
    chosen: tuple[str, ...]
    scores: dict[str, Point]

    @property
    def largest(self) -> float | None:
        """Its largest |effect| over tasks; None where none was measured."""
        held = [abs(drop.point.value) for drop in self.drops.values() if drop.point.value is not None]
        return max(held, default=None)


@dataclass(frozen=True)
class UnitScatter:
    """Effects on two tasks, one point a unit.

    Attributes:
        tasks: on the x axis and on the y axis.
        groups: (title, lines): in no circuit, the first task's, the second's, both; within each by |effect|.
        metric: with its units, for axes.
        share: whether the metric runs from 0 to 1.
    """

    tasks: tuple[str, str]
    groups: tuple[tuple[str, tuple[UnitLine, ...]], ...]
    metric: str
    share: bool

    @property
    def named(self) -> frozenset[str]:
        """Units to name in a figure: those of the circuits if they are few, the largest ones without a circuit."""
        chosen = [line.name for _, lines in self.groups[1:] for line in lines]
        if len(chosen) > MOST_NAMED:
            return frozenset()
        apart = [line for line in self.groups[0][1] if any(line.drops[task].point.value for task in self.tasks)]
        return frozenset(chosen or [line.name for line in apart[: MOST_NAMED // 2]])


def task_names(report: CircuitReport) -> tuple[str, ...]:
    """Return the tasks' names, plain text, in the report's order."""
    return tuple(visible(task.name, 60) for task in report.tasks)


def metric_words(level: LevelResult) -> str:
    """Return the metric and its units for an axis."""
    units = "" if level.metric_units == "1" else f", {visible(level.metric_units, 30)}"
    return f"{visible(level.metric, 60)}{units}"


def chosen_units(report: CircuitReport, level: Level) -> dict[str, tuple[str, ...]]:
    """Return each task's circuit at one level: those of the dissociation, otherwise the largest of the first rule."""
    for found in report.dissociations:
        if found.level == level:
            return {found.first.circuit: found.first.units, found.second.circuit: found.second.units}
    circuits: dict[str, tuple[str, ...]] = {}
    own = [circuit for circuit in report.circuits if circuit.level == level]
    for circuit in own:
        if circuit.rule == own[0].rule and len(circuit.units) > len(circuits.get(circuit.task, ())):
            circuits[circuit.task] = circuit.units
    return circuits


def unit_lines(report: CircuitReport, level: Level) -> list[UnitLine]:
    """Return a level's units, the largest |effect| on any task first, those without one last."""
    held = report.level(level)
    if held is None:
        return []
    circuits = {task: set(units) for task, units in chosen_units(report, level).items()}
    lines = [_line(report, unit, circuits) for unit in held.units]
    return sorted(lines, key=lambda line: (line.largest is None, -(line.largest or 0.0), line.layer, line.index))


def top_units(report: CircuitReport, level: Level, most: int = 20) -> list[UnitLine]:
    """Return the units with the largest effects; those whose effects are all exactly 0 only where all are."""
    lines = measured_units(report, level)
    return ([line for line in lines if line.largest] or lines)[:most]


def measured_units(report: CircuitReport, level: Level) -> list[UnitLine]:
    """Return every unit with an effect that was measured, the largest first."""
    return [line for line in unit_lines(report, level) if line.largest is not None]


def unit_scatter(report: CircuitReport, level: Level = "head") -> UnitScatter | None:
    """Return the effects on the first two tasks; None with one task, or where no unit has both."""
    held, tasks = report.level(level), task_names(report)
    if held is None or len(tasks) < 2:
        return None
    first, second = tasks[:2]
    lines = [
        line
        for line in unit_lines(report, level)
        if all(line.drops[t].point.value is not None for t in (first, second))
    ]
    if not lines:
        return None
    lines.sort(key=lambda line: -max(abs(line.drops[task].point.value or 0.0) for task in (first, second)))
    wanted = {
        "in neither circuit": lambda line: not {first, second} & set(line.chosen),
        f"{first} circuit": lambda line: first in line.chosen and second not in line.chosen,
        f"{second} circuit": lambda line: second in line.chosen and first not in line.chosen,
        "in both circuits": lambda line: {first, second} <= set(line.chosen),
    }
    groups = tuple((title, tuple(filter(test, lines))) for title, test in wanted.items())
    if not any(held for _, held in groups[1:]):
        groups = ((LEVEL_WORDS[level][1], tuple(lines)), *groups[1:])
    return UnitScatter((first, second), groups, metric_words(held), held.metric_units == "1")


def effect_grids(report: CircuitReport) -> list[ScoreGrid]:
    """Return layer × head grids: the effect on each task, the difference of the first two, and screens."""
    held = report.level("head")
    if held is None or not held.units:
        return []
    lines, tasks, n_heads = unit_lines(report, "head"), task_names(report), report.model.n_heads
    share, units = held.metric_units == "1", visible(held.metric_units, 30)
    grids = []
    for task in tasks:
        words = Measure(f"Effect on {task}", f"drop of {metric_words(held)} without the head", share, units=units)
        cells = {(line.layer, line.index): line.drops[task].point for line in lines}
        grids.append(point_grid(f"effect {task}", words, cells, n_heads))
    if len(tasks) > 1:
        words = Measure(capital(f"{tasks[0]} minus {tasks[1]}"), "difference of the two effects", share, units=units)
        cells = {(line.layer, line.index): _difference(line, *tasks[:2]) for line in lines}
        grids.append(point_grid("difference", words, cells, n_heads))
    if held.screen:
        for task in tasks:
            words = Measure(
                f"{visible(held.screen, 30)} on {task}", "the screen's estimate of the effect", share, units=units
            )
            cells = {(line.layer, line.index): Point(line.drops[task].screened) for line in lines}
            grids.append(point_grid(f"screen {task}", words, cells, n_heads))
    return [grid for grid in grids if grid.measured]


def _line(report: CircuitReport, unit: UnitEffect, circuits: dict[str, set[str]]) -> UnitLine:
    drops = {}
    for task, name in zip(report.tasks, task_names(report), strict=True):
        item = unit.effects.get(task.name, Missing(reason="not measured on this task"))
        p, q = (item.p, item.q) if isinstance(item, UnitDrop) else (None, None)
        drops[name] = Drop(point(item), p, q, unit.screened.get(task.name))
    return UnitLine(
        name=visible(unit.unit),
        module=unit.module,
        layer=unit.layer,
        index=unit.index,
        drops=drops,
        chosen=tuple(visible(task, 60) for task, units in circuits.items() if unit.unit in units),
        scores={visible(name): point(item) for name, item in unit.scores.items()},
    )


def _difference(line: UnitLine, first: str, second: str) -> Point:
    a, b = line.drops[first].point, line.drops[second].point
    if a.value is None or b.value is None:
        return Point(None, reason=a.reason or b.reason)
    return Point(a.value - b.value, n=min(a.n or 0, b.n or 0))
