"""Measurements of circuits that can be set beside published numbers: MIB's curve, greater-than, circuit reuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .core.errors import StatisticsError, TaskError
from .core.ids import HeadId
from .core.report import Missing
from .core.track import Track
from .core.units import Unit
from .engine.attribution.circuit_edges import random_edges
from .engine.attribution.edge_faithfulness import EdgeFaithfulness, edge_faithfulness
from .engine.attribution.edges import attribute_edges
from .engine.sweep.run import sweep
from .tasks.colored_objects import ColoredObjects
from .tasks.greater_than import GreaterThan
from .tasks.ioi import IOI
from .verify_circuit_parts import METRIC, CircuitChecks, findings, path_changes
from .verify_measures import Findings

if TYPE_CHECKING:
    from .models._base import Scope


def mib(scope: Scope, plan: CircuitChecks, track: Track) -> Findings:
    """Measure CPR and CMD of EAP-IG's edges and of random ones on IOI; edges are scored on other pairs (2504.13151).

    Raises:
        TaskError: the tokenizer leaves too few words.
        UnsupportedModelError: heads do not add straight to the residual stream.
        DeviceError: the device ran out of memory.
    """
    tasks = [IOI(n=plan.prompts, seed=seed, corruption="s2") for seed in (plan.seed + 1, plan.seed)]
    scored, pairs = (task.build(scope.tokenizer) for task in tasks)
    with track("MIB: edge scores", 1) as advance:
        edges = attribute_edges(scope, scored, metric=METRIC, steps=plan.steps, batch_tokens=plan.batch_tokens)
        advance(1)
    values: dict[str, int | float | Missing] = {"edges": int((~np.isnan(edges.scores)).sum())}
    curves: dict[str, EdgeFaithfulness] = {}
    for name, source, ranking in (
        ("cpr", edges, "gain"),
        ("cmd", edges, "magnitude"),
        ("random", random_edges(edges, plan.seed), "gain"),
    ):
        with track(f"MIB: circuits, {name}", 100) as advance:
            curves[name] = edge_faithfulness(
                scope,
                pairs,
                source,
                plan.sizes,
                ranking=ranking,  # type: ignore[arg-type]
                metric=METRIC,
                progress=lambda done, total, advance=advance: advance(100 * done // total),  # type: ignore[misc]
                **plan.options,
            )
    for metric, curve, area in (
        ("cpr", "cpr", "cpr"),
        ("cmd", "cmd", "cmd"),
        ("random_cpr", "random", "cpr"),
        ("random_cmd", "random", "cmd"),
    ):
        try:
            values[metric] = float(getattr(curves[curve].areas, area))
        except StatisticsError as error:
            values[metric] = Missing(reason=str(error))
    runs = curves["cmd"].runs
    values["all_edges_gap"] = float(np.abs(runs.values[:, -1] - runs.whole).max())
    how = {"corrupt": "S2 replaced by IO", "steps": plan.steps, "sizes": ", ".join(map(str, plan.sizes))}
    sets = {"ioi scored": (tasks[0], scored), "ioi measured": (tasks[1], pairs)}
    note = "all edges gap: largest |metric of the circuit of the largest size - metric of the model|; 0 for all edges."
    return findings(scope, plan, values, how, sets, (note,))


def greater_than(scope: Scope, plan: CircuitChecks, track: Track) -> Findings:
    """Measure the probability of later years minus that of earlier ones (2305.00586), percent.

    Raises:
        DeviceError: the device ran out of memory.
    """
    task, how = GreaterThan(n=plan.prompts, seed=plan.seed), {"centuries": "11 to 17"}
    try:
        pairs = task.build(scope.tokenizer)
    except TaskError as error:
        missing = {"probability_difference": Missing(reason=str(error))}
        return findings(scope, plan, missing, how, {})
    with track("Greater-than", 1) as advance:
        name = "probability_difference"
        found = sweep(scope, pairs, [(Unit("mlp", 0),)], metrics=name, **plan.options).baseline[name]
        advance(1)
    return findings(scope, plan, {name: 100 * float(found.mean())}, how, {"greater_than": (task, pairs)})


def circuit_reuse(scope: Scope, plan: CircuitChecks, track: Track) -> Findings:
    """Measure how many heads two tasks share, of the top 2% of each step of path patching (2310.08744).

    Two steps at the last token: to the logits, and to the queries of the heads which that found. A step's heads are
    those of largest |patched - clean|; the paper divides all by corrupt - clean, which orders them alike.

    Raises:
        TaskError: the tokenizer leaves too few words.
        DeviceError: the device ran out of memory.
    """
    found: list[set[HeadId]] = []
    sets: dict[str, tuple[Any, Any]] = {}
    top = max(1, round(0.02 * len(scope.info.heads)))
    for task in (IOI(n=plan.prompts, seed=plan.seed), ColoredObjects(n=plan.prompts, seed=plan.seed)):
        pairs = task.build(scope.tokenizer)
        sets[task.name] = (task, pairs)
        with track(f"Circuit reuse: {task.name}", 2) as advance:
            first = _largest(scope, path_changes(scope, pairs, plan, positions="answer"), top)
            advance(1)
            second = _largest(scope, path_changes(scope, pairs, plan, sorted(first), positions="answer"), top)
            found.append(first | second)
            advance(2)
    shared = len(found[0] & found[1])
    values = {"shared_heads": shared / min(map(len, found)), "heads_first_task": len(found[0])}
    how = {"steps": "logits, then queries of the heads found", "position": "last token", "top": f"{top} heads a step"}
    note = "Not measured: the paper's later steps, and its repair of one task by the other's heads."
    return findings(scope, plan, {**values, "heads_second_task": len(found[1])}, how, sets, (note,))


def _largest(scope: Scope, change: np.ndarray, top: int) -> set[HeadId]:
    order = np.argsort(-np.abs(change).ravel(), kind="stable")[:top]
    return {scope.info.heads[int(index)] for index in order}
