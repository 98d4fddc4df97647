"""What a circuit report runs: sweeps of single units, of circuits beside random others, and of all but a circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .analyses.circuits import halves
from .circuit_plan import CircuitPlan
from .core.errors import UnsupportedModelError
from .core.stages import Stages
from .core.track import Track, counted
from .core.units import Level, Module, Unit
from .core.units import units_of as units_of_level
from .engine.attribution.patching import attribute
from .engine.reference import measure_reference
from .engine.sweep.alternatives import Alternative, Fixed, OtherPrompts, OtherRun, Zero
from .engine.sweep.controls import random_units
from .engine.sweep.run import sweep
from .engine.sweep.units import SITE, neuron_counts
from .reports.circuit_statistics import effect_statistics

if TYPE_CHECKING:
    from .models._base import Scope

METRIC, UNITS = "logit_difference", "logit"
MODULES: dict[Level, tuple[Module, ...]] = {"head": ("head",), "layer": ("attention", "mlp"), "neuron": ("neuron",)}
Circuit = tuple[Unit, ...]


@dataclass(frozen=True, eq=False)
class Ablated:
    """Right answers of a task's testing half.

    Attributes:
        whole: `[P]` of the untouched model.
        without: circuit → `[P]`.
    """

    whole: np.ndarray
    without: dict[Circuit, np.ndarray]


class Measures:
    """The runs of a report, each kept when it is done."""

    def __init__(
        self,
        scope: Scope,
        plan: CircuitPlan,
        prompts: Mapping[str, Any],
        stages: Stages,
        track: Track,
        options: dict[str, Any],
    ) -> None:
        self.scope, self.plan, self.prompts, self.stages, self.track = scope, plan, prompts, stages, track
        self.options = options
        self.forwards: dict[str, float] = {}
        self._halves = {task: self._split(task) for task in prompts}

    def _split(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        pairs = self.prompts[task]
        groups = pairs["subject"] if "subject" in pairs.column_names else None
        return halves(len(pairs), groups, self.plan.seed)

    def choosing(self, task: str) -> Any:
        """Return the prompts that choose circuits."""
        return self.prompts[task].select(self._halves[task][0])

    def testing(self, task: str) -> Any:
        """Return the prompts that test them."""
        return self.prompts[task].select(self._halves[task][1])

    @cached_property
    def alternative(self) -> Alternative:
        """What takes a unit's place; means are taken over all prompts' tokens, of all tasks together."""
        if self.plan.ablation == "zero":
            return Zero()
        if self.plan.ablation == "resample":
            return OtherPrompts(self.plan.seed)
        from datasets import concatenate_datasets

        tokens = concatenate_datasets([pairs.select_columns(["input_ids"]) for pairs in self.prompts.values()])
        sites = [SITE[module] for level in self.plan.levels for module in MODULES[level] if module in SITE]
        with self.track("Means", len(tokens)) as advance:
            found = measure_reference(
                self.scope, tokens, sites=sites, patterns=False, progress=counted(advance), **self.options
            )
        values: dict[Any, Any] = {("z", layer): mean for layer, mean in found.heads.items()}
        values |= {(site, layer): mean for site, by_layer in found.sites.items() for layer, mean in by_layer.items()}
        return Fixed(values)

    def shape(self, level: Level) -> tuple[int, ...]:
        """Return the shape of arrays of a level's units.

        Raises:
            UnsupportedModelError: the model's neurons cannot be edited, or blocks have different numbers of them.
        """
        info = self.scope.info
        if level == "head":
            return len(info.attention_layers), info.n_heads
        if level == "layer":
            return info.n_layers, 2
        counts = neuron_counts(self.scope)
        if len(set(counts)) != 1:
            raise UnsupportedModelError(
                f"neurons of {info.model_id}", found=f"{sorted(set(counts))} a block", expected="equally many in each"
            )
        return info.n_layers, counts[0]

    def pool(self, level: Level) -> list[Unit]:
        """Return every unit of a level that the model has."""
        has = set(self.scope.info.attention_layers)
        units = units_of_level(self.scope.info, level, self.shape(level))
        return [unit for unit in units if unit.module != "attention" or unit.layer in has]

    def screened(self, level: Level) -> bool:
        """Return whether a level's units are screened first."""
        return level == "neuron" or (level == "head" and self.plan.method == "atp")

    def effects(self, level: Level) -> dict[str, xr.Dataset]:
        """Return, by task, the metric of the choosing half: untouched, and without each unit alone.

        Raises:
            UnsupportedModelError: the model lacks the level's units, or gradients for their screen.
        """
        units, shape = units_of_level(self.scope.info, level, self.shape(level)), self.shape(level)
        screens = {task: self._screen(level, task) for task in self.prompts} if self.screened(level) else {}
        chosen = self._best(level, screens) if screens else self.pool(level)
        found = {}
        for task in self.prompts:

            def make(task: str = task) -> xr.Dataset:
                with self.track(f"Ablating {level}s, {task}", len(chosen) * len(self.choosing(task))) as advance:
                    swept = sweep(
                        self.scope,
                        self.choosing(task),
                        [(unit,) for unit in chosen],
                        metrics=METRIC,
                        alternative=self.alternative,
                        progress=counted(advance),
                        **self.options,
                    )
                self.forwards[level] = self.forwards.get(level, 0.0) + swept.forwards
                edited = np.full((len(self.choosing(task)), len(units)), np.nan)
                edited[:, [units.index(unit) for unit in chosen]] = swept.values[METRIC]
                table = edited.reshape(-1, *shape)
                screen = screens[task].reshape(shape) if screens else None
                return effect_statistics(
                    self.scope.info, level, task, swept.baseline[METRIC], table, METRIC, UNITS, screen
                )

            found[task] = self.stages.keep_dataset(f"effects-{level}-{task}", make)
        return found

    def _screen(self, level: Level, task: str) -> np.ndarray:
        """Return the estimated effect of every unit, from one gradient."""
        (module,) = MODULES[level]
        with self.track(f"Screening {level}s, {task}", len(self.choosing(task))) as advance:
            found = attribute(
                self.scope,
                self.choosing(task),
                module,
                metric=METRIC,
                alternative=self.alternative,
                progress=counted(advance),
                **self.options,
            )
        return np.asarray(found.effect.mean(0))

    def _best(self, level: Level, screens: Mapping[str, np.ndarray]) -> list[Unit]:
        """Return the units that the screen puts first on any task."""
        units = self.pool(level)
        kept = {int(i) for screen in screens.values() for i in np.argsort(-np.abs(screen))[: self.plan.verify]}
        return [units[i] for i in sorted(kept)]

    def right(self, name: str, task: str, circuits: Sequence[Circuit], *, testing: bool = True) -> Ablated:
        """Return right answers without each of some circuits."""
        prompts = self.testing(task) if testing else self.choosing(task)
        values = self._swept(f"right-{name}-{task}", f"Circuits of {name}, {task}", prompts, circuits, "accuracy")
        return Ablated(values[0], dict(zip(circuits, values[1:], strict=True)))

    def metric(self, name: str, task: str, circuits: Sequence[Circuit]) -> tuple[float, dict[Circuit, float]]:
        """Return the mean metric of the testing half: of the untouched model, and without each circuit."""
        values = self._swept(f"metric-{name}-{task}", f"{name}, {task}", self.testing(task), circuits, METRIC)
        return float(values[0].mean()), {
            circuit: float(row.mean()) for circuit, row in zip(circuits, values[1:], strict=True)
        }

    def patched(self, name: str, task: str, circuits: Sequence[Circuit]) -> Ablated:
        """Return how often corrupt prompts of the testing half get the clean answer, with clean values in circuits."""
        values = self._swept(
            f"patched-{name}-{task}",
            f"Patching {name}, {task}",
            self.testing(task),
            circuits,
            "accuracy",
            OtherRun("input_ids"),
            "corrupt_ids",
        )
        return Ablated(values[0], dict(zip(circuits, values[1:], strict=True)))

    def both(self, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return right answers, the metric on clean and on corrupt prompts, over all of a task's prompts."""

        def make() -> list[list[float]]:
            whole = [(Unit("residual", 0),)]
            found = sweep(
                self.scope,
                self.prompts[task],
                whole,
                metrics=["accuracy", METRIC],
                alternative=OtherRun(),
                **self.options,
            )
            arrays = (found.baseline["accuracy"], found.baseline[METRIC], found.values[METRIC][:, 0])
            return [[float(v) for v in array] for array in arrays]

        right, clean, corrupt = (np.array(row) for row in self.stages.keep(f"both-{task}", list[list[float]], make))
        return right, clean, corrupt

    def controls(self, level: Level, circuit: Circuit, excluded: Sequence[Unit]) -> tuple[list[Circuit], bool]:
        """Return random circuits of as many units of the same kind and blocks, none of them excluded."""
        chooser = np.random.default_rng((self.plan.seed, len(circuit), sum(unit.layer for unit in circuit)))
        drawn = [random_units(self.pool(level), circuit, chooser, excluded) for _ in range(self.plan.draws)]
        return [units for units, _ in drawn if units], all(matched for _, matched in drawn)

    def _swept(
        self,
        stage: str,
        what: str,
        prompts: Any,
        circuits: Sequence[Circuit],
        metric: str,
        alternative: Alternative | None = None,
        base: str = "input_ids",
    ) -> np.ndarray:
        """Return `[1 + circuits, P]`: the untouched model, and each circuit edited."""

        def make() -> list[list[float]]:
            unique = list(dict.fromkeys(circuits))
            with self.track(what, len(unique) * len(prompts)) as advance:
                found = sweep(
                    self.scope,
                    prompts,
                    unique,
                    metrics=metric,
                    alternative=alternative or self.alternative,
                    base=base,
                    progress=counted(advance),
                    **self.options,
                )
            rows = [found.baseline[metric], *(found.values[metric][:, unique.index(c)] for c in circuits)]
            return [[float(value) for value in row] for row in rows]

        return np.array(self.stages.keep(stage.replace(" ", "-"), list[list[float]], make))
