"""What happens to norm, attention, lifetime and loss without the writes that make a level of sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .analyses.residual_runs import Run, Thresholds
from .core.sink_report import CurvePoint, Estimate, Writer, WriteTest
from .engine.sink_writes import write_effects
from .reports.sinks import Evidence, estimate, level_ids
from .sink_plan import TESTED_LEVELS, TESTED_PROMPTS, SinkPlan

if TYPE_CHECKING:
    import xarray as xr

    from .models._base import Scope


@dataclass(frozen=True)
class Tested:
    """One level whose write is tested.

    Attributes:
        level: index into the report's levels.
        layer: the writing block.
        module: the writing module.
        sinks: of the level, written by this module, in the first TESTED_PROMPTS such prompts.
        writers: one a sink.
    """

    level: int
    layer: int
    module: str
    sinks: tuple[Run, ...]
    writers: tuple[Writer, ...]

    @property
    def rows(self) -> list[int]:
        """The prompts, in order."""
        return sorted({run.prompt for run in self.sinks})


def levels_to_test(evidence: Sequence[Evidence]) -> list[Tested]:
    """Return the most common levels that an attention or MLP writes; TESTED_LEVELS at most are looked at."""
    ids = level_ids([one.run for one in evidence])
    tested = []
    for (first, lifetime), index in list(ids.items())[:TESTED_LEVELS]:
        own = [(e.run, e.writer) for e in evidence if (e.run.first, e.run.lifetime) == (first, lifetime) and e.writer]
        writers = Counter((writer.module, writer.layer) for _, writer in own).most_common(1)
        if not writers or writers[0][0][0] == "embedding":
            continue
        (module, layer), _ = writers[0]
        mine = [(run, writer) for run, writer in own if (writer.module, writer.layer) == (module, layer)]
        rows = sorted({run.prompt for run, _ in mine})[:TESTED_PROMPTS]
        mine = [(run, writer) for run, writer in mine if run.prompt in rows]
        tested.append(Tested(index, layer, module, tuple(r for r, _ in mine), tuple(w for _, w in mine)))
    return tested


def measure_write(
    scope: Scope,
    prompts: Any,
    tested: Tested,
    traced: xr.Dataset,
    thresholds: Thresholds,
    plan: SinkPlan,
    options: dict[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> WriteTest | None:
    """Return what happens without one level's write; None where no prompt has a second token.

    Args:
        scope: a loaded model with a vocabulary projection.
        prompts: all prompts.
        tested: the level.
        traced: `engine.sink_trace.trace` of all prompts.
        thresholds: what counts as a sink.
        plan: draws and seed.
        options: `implementation` and `batch_tokens`.
        progress: takes steps done and steps in all.

    Raises:
        DeviceError: the device ran out of memory.
    """
    rows = tested.rows
    effects = write_effects(
        scope,
        prompts.select(rows),
        [replace(run, prompt=rows.index(run.prompt)) for run in tested.sinks],
        tested.layer,
        tested.module,  # type: ignore[arg-type]
        float(np.median([writer.output_norm for writer in tested.writers])),
        unedited=traced.isel(prompt=rows),
        thresholds=thresholds,
        neurons=next((writer.neurons for writer in tested.writers if writer.neurons), None),
        draws=plan.draws,
        seed=plan.seed,
        progress=progress,
        **options,
    )
    change = estimate(effects.without, "no prompt has a second token")
    if not isinstance(change, Estimate):
        return None
    return WriteTest(
        level=tested.level,
        layer=tested.layer,
        module=tested.module,  # type: ignore[arg-type]
        curve=tuple(CurvePoint(**asdict(point)) for point in effects.curve),
        neurons_removed=effects.neurons,
        loss_without_neurons=_mean(effects.without_neurons, effects.curve),
        loss_change=change,
        control_changes=tuple(float(v) for v in effects.random_writes.mean(1)),
        random_positions_changes=tuple(float(v) for v in effects.random_positions.mean(1)),
    )


def _mean(change: np.ndarray | None, curve: Sequence[Any]) -> float | None:
    if change is None:
        return None
    return float(change.mean()) + next(point.loss for point in curve if point.factor == 1.0)
