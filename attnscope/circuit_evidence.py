"""From runs to what a circuit report says: effects, circuits, dissociations, faithfulness, overlap, transfer, edges."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import xarray as xr

from .analyses.circuits import Effects, effects, ranked, selective
from .analyses.dissociation import double_dissociation
from .analyses.faithfulness import MIB_SIZES, minimality
from .circuit_measures import METRIC, UNITS, Circuit, Measures
from .circuit_plan import SERVES_BOTH
from .core.circuit_report import (
    Circuit as ChosenCircuit,
)
from .core.circuit_report import (
    CircuitDrop,
    CircuitOverlap,
    CircuitQuality,
    Dissociation,
    Edge,
    FaithfulnessCurve,
    LevelResult,
    Rule,
    Transfer,
)
from .core.errors import UnsupportedModelError
from .core.units import Level
from .engine.attribution.circuit_edges import between_nodes
from .engine.attribution.edges import attribute_edges
from .reports.circuit_quality import circuit_overlap, circuit_quality, faithfulness_curve, top_edges
from .reports.circuit_tests import circuit_drop, dissociation, transfer
from .reports.circuits import chosen_circuit, level_result, named

KEPT_NEURONS, KEPT_EDGES, EDGE_PROMPTS, EDGE_STEPS, RANDOM_CIRCUITS, SUBSETS = 200, 60, 16, 5, 3, 5


class Evidence:
    """The parts of a report, filled level by level."""

    def __init__(self, measures: Measures) -> None:
        self.measures, self.plan, self.info = measures, measures.plan, measures.scope.info
        self.tasks = tuple(measures.prompts)
        self.levels: list[LevelResult] = []
        self.circuits: list[ChosenCircuit] = []
        self.dissociations: list[Dissociation] = []
        self.curves: list[CircuitDrop] = []
        self.faithfulness: list[FaithfulnessCurve] = []
        self.quality: list[CircuitQuality] = []
        self.overlaps: list[CircuitOverlap] = []
        self.transfers: list[Transfer] = []
        self.edges: list[Edge] = []
        self.missing: dict[str, str] = {}
        self._ranking: dict[str, list[tuple[int, ...]]] = {}

    @property
    def rule(self) -> Rule:
        """How circuits are chosen: by their effect alone where there is one task."""
        return "selective" if len(self.tasks) == 2 else "effect"

    def add_level(self, level: Level) -> dict[str, xr.Dataset]:
        """Measure a level's units one by one and together, and return the statistics.

        Raises:
            UnsupportedModelError: the model lacks the level's units, or gradients for their screen.
        """
        data = self.measures.effects(level)
        test = "wilcoxon" if level == "neuron" else "sign-flip"
        found = {task: effects(d.baseline.values, d.edited.values, test=test) for task, d in data.items()}  # type: ignore[arg-type]
        screened = {task: d.screened.values for task, d in data.items() if "screened" in d}
        self.levels.append(
            level_result(
                self.info,
                level,
                found,
                metric=METRIC.replace("_", " "),
                metric_units=UNITS,
                ablation=self.plan.ablation,
                screen="atp" if screened else None,
                screened=screened or None,
                gradient_at="clean" if screened else None,
                test=test,
                n_selection=len(self.measures.choosing(self.tasks[0])),
                reason="the screen put it behind the units that were measured" if screened else "no attention there",
                keep=KEPT_NEURONS if level == "neuron" else None,
            )
        )
        if level == "head":
            self._ranking = {task: ranked(item.mean) for task, item in found.items()}
        self._circuits(level, found)
        return {f"{level}-{task}": d for task, d in data.items()}

    def _circuits(self, level: Level, found: Mapping[str, Effects]) -> None:
        """Choose nested circuits on one half of the prompts, and measure what the other half loses without them."""
        shape, chosen = self.measures.shape(level), dict[str, dict[int, Circuit]]()
        for i, task in enumerate(self.tasks):
            score = found[task].mean
            if len(self.tasks) == 2:
                score = selective(score, found[self.tasks[1 - i]].mean, SERVES_BOTH)
            order = [unit for unit in ranked(score) if score[unit] > 0]
            sizes = [size for size in self.plan.sizes if size <= len(order)]
            chosen[task] = {size: tuple(named(self.info, level, shape, order[:size])) for size in sizes}
            for units in chosen[task].values():
                n = len(self.measures.choosing(task))
                self.circuits.append(chosen_circuit(task, level, self.rule, units, n))
        if not all(chosen.values()):
            empty = [task for task, circuits in chosen.items() if not circuits]
            self.missing[f"{level} circuits"] = (
                f"no {level} serves {' or '.join(empty)} without serving the other task as well"
            )
            return
        self._curves(level, chosen)
        if len(self.tasks) == 2:
            self._dissociate(level, chosen)

    def _curves(self, level: Level, chosen: Mapping[str, Mapping[int, Circuit]]) -> None:
        every = [unit for circuits in chosen.values() for unit in circuits[max(circuits)]]
        circuits = [units for sizes in chosen.values() for units in sizes.values()]
        controls = {units: self.measures.controls(level, units, every) for units in circuits}
        wanted = [*controls, *(draw for draws, _ in controls.values() for draw in draws)]
        self._right = {task: self.measures.right(level, task, wanted) for task in self.tasks}
        self._controls = controls
        for circuit, task in product(self.tasks, self.tasks):
            for units in chosen[circuit].values():
                draws, matched = controls[units]
                right = self._right[task]
                control = np.stack([right.without[draw] for draw in draws]) if draws else None
                self.curves.append(
                    circuit_drop(
                        level, self.rule, circuit, task, units, right.whole, right.without[units], control, matched
                    )
                )

    def _dissociate(self, level: Level, chosen: Mapping[str, Mapping[int, Circuit]]) -> None:
        """Test the circuits whose size the choosing half prefers."""
        circuits = [units for sizes in chosen.values() for units in sizes.values()]
        seen = {task: self.measures.right(f"{level} sizes", task, circuits, testing=False) for task in self.tasks}
        best: list[Circuit] = []
        for i, task in enumerate(self.tasks):
            other = self.tasks[1 - i]

            def score(units: Circuit, task: str = task, other: str = other) -> tuple[bool, float]:
                own, spared = (float((seen[name].whole - seen[name].without[units]).mean()) for name in (task, other))
                return spared <= self.plan.most_other, own - spared

            best.append(max(chosen[task].values(), key=score))
        right = [self._right[task] for task in self.tasks]
        pairs = [tuple(r.without[units] for r in right) for units in best]
        draws = [
            tuple(np.stack([r.without[draw] for draw in self._controls[units][0]]) for r in right)
            if self._controls[units][0]
            else None
            for units in best
        ]
        found = double_dissociation(
            (right[0].whole, right[1].whole),
            *pairs,  # type: ignore[arg-type]
            *draws,  # type: ignore[arg-type]
            least_drop=self.plan.least_drop,
            most_other=self.plan.most_other,
            seed=self.plan.seed,
        )
        matched = all(self._controls[units][1] for units in best)
        tasks = (self.tasks[0], self.tasks[1])
        self.dissociations.append(
            dissociation(level, self.rule, self.plan.ablation, tasks, (best[0], best[1]), found, matched)
        )

    def add_quality(self) -> None:
        """Measure how circuits of heads stand for the model, and what two of them share."""
        if not self._ranking:
            self.missing["faithfulness"] = self.missing["quality"] = "heads were not measured"
            return
        for task in self.tasks:
            self._faithful(task)
        if len(self.tasks) == 2:
            k = min(max(self.plan.sizes), *(len(order) for order in self._ranking.values()))
            chosen = [self._ranking[task][:k] for task in self.tasks]
            shape = self.measures.shape("head")
            tasks = (self.tasks[0], self.tasks[1])
            self.overlaps.append(circuit_overlap(self.info, "head", tasks, (chosen[0], chosen[1]), shape))

    def _heads(self, task: str, size: int) -> Circuit:
        return tuple(named(self.info, "head", self.measures.shape("head"), self._ranking[task][:size]))

    def _faithful(self, task: str) -> None:
        """Keep the first heads of the ranking and ablate all others; MLPs stay."""
        pool, chooser = tuple(self.measures.pool("head")), np.random.default_rng(self.plan.seed)
        n = len(self._ranking[task])
        counts = sorted({max(1, round(share * n)) for share in MIB_SIZES})
        kept = {count: self._heads(task, count) for count in counts}
        random = [
            {count: tuple(sorted(pool[i] for i in chooser.permutation(len(pool))[:count])) for count in counts}
            for _ in range(RANDOM_CIRCUITS)
        ]
        circuit = self._heads(task, min(max(self.plan.sizes), n))
        halves = [
            tuple(unit for unit, inside in zip(circuit, chooser.random(len(circuit)) < 0.5, strict=True) if inside)
            for _ in range(SUBSETS)
        ]
        subsets = [subset for subset in dict.fromkeys(halves) if subset]
        sets = ((), *subsets)
        without = {s: _minus(circuit, s) for s in sets}
        wanted = [_minus(pool, keep) for keep in (*kept.values(), *(r[c] for r in random for c in counts))]
        wanted += [_minus(pool, keep) for keep in without.values()]
        wanted += [_minus(pool, _minus(keep, (unit,))) for keep in without.values() for unit in circuit]
        wanted += [*subsets, pool]
        whole, values = self.measures.metric("faithfulness", task, [tuple(units) for units in wanted if units])
        values[()] = whole

        def of(keep: Circuit) -> float:
            return values[_minus(pool, keep)]

        empty = values[pool]
        self.faithfulness.append(
            faithfulness_curve(
                task,
                "head",
                "effect on the choosing half",
                [count / n for count in counts],
                np.array([of(kept[count]) for count in counts]),
                empty,
                whole,
                np.array([[of(r[count]) for count in counts] for r in random]),
            )
        )
        base = np.array([[of(without[s]) for s in sets] for _ in circuit])
        with_unit = np.array([[of(_minus(without[s], (unit,))) for s in sets] for unit in circuit])
        tests = {", ".join(map(str, s)): (of(without[s]), values[s]) for s in subsets}
        self.quality.append(
            circuit_quality(
                task,
                "head",
                circuit,
                METRIC.replace("_", " "),
                whole,
                of(circuit),
                empty,
                tests,
                minimality(base, with_unit),
            )
        )

    def add_transfers(self) -> None:
        """Put clean values of each task's heads into corrupt prompts of every task (the repair experiment)."""
        if not self._ranking:
            self.missing["transfers"] = "heads were not measured"
            return
        k = max(self.plan.sizes)
        circuits = {task: self._heads(task, min(k, len(self._ranking[task]))) for task in self.tasks}
        every = [unit for circuit in circuits.values() for unit in circuit]
        controls = {task: self.measures.controls("head", circuit, every)[0] for task, circuit in circuits.items()}
        wanted = [*circuits.values(), *(draw for draws in controls.values() for draw in draws)]
        for task in self.tasks:
            right = self.measures.patched("heads", task, wanted)
            for source, circuit in circuits.items():
                draws = controls[source]
                self.transfers.append(
                    transfer(
                        "clean outputs of these heads put into corrupt prompts",
                        source,
                        task,
                        circuit,
                        right.whole,
                        right.without[circuit],
                        np.stack([right.without[draw] for draw in draws]) if draws else None,
                    )
                )

    def add_edges(self) -> None:
        """Score edges between heads and MLPs."""
        if not self.plan.edges:
            return
        for task in self.tasks:
            prompts = self.measures.choosing(task)
            few = prompts.select(range(min(EDGE_PROMPTS, len(prompts))))

            def make(few: object = few, task: str = task) -> list[Edge]:
                found = attribute_edges(self.measures.scope, few, metric=METRIC, steps=EDGE_STEPS)  # type: ignore[arg-type]
                return list(top_edges(task, between_nodes(found, self.info), KEPT_EDGES))

            try:
                with self.measures.track(f"Edges, {task}", 1):
                    self.edges += self.measures.stages.keep(f"edges-{task}", list[Edge], make)
            except UnsupportedModelError as error:
                self.missing["edges"] = str(error)
                return


def _minus(units: Circuit, others: Circuit) -> Circuit:
    gone = set(others)
    return tuple(unit for unit in units if unit not in gone)
