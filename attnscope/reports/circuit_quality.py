"""Build what a CircuitReport says of circuits standing alone, beside each other, and of the graph of edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..analyses.circuits import unit_mask
from ..analyses.compare import overlap
from ..analyses.faithfulness import areas, faithfulness, incompleteness
from ..core.circuit_report import CircuitOverlap, CircuitQuality, Edge, FaithfulnessCurve, SubsetTest
from ..core.model_info import ModelInfo
from ..core.units import Level, Unit
from .circuits import named


def faithfulness_curve(
    task: str,
    level: str,
    ranking: str,
    sizes: Sequence[float],
    values: np.ndarray,
    empty: float,
    whole: float,
    controls: np.ndarray | None = None,
) -> FaithfulnessCurve:
    """Return f over circuit size, with CPR and CMD where f is known at two sizes or more.

    Args:
        task, level, ranking: of the circuits.
        sizes: shares of all units, ascending, 0..1.
        values: `[sizes]` metric with all but the circuit ablated, NaN where missing.
        empty: metric with everything ablated.
        whole: metric of the untouched model.
        controls: `[draws, sizes]` the metric of random circuits.
    """
    f = faithfulness(np.asarray(values), empty, whole)
    area = areas(sizes, f) if len(f) > 1 and not np.isnan(f).any() else None
    random = () if controls is None or not len(controls) else faithfulness(controls, empty, whole).mean(0)
    return FaithfulnessCurve(
        task=task,
        level=level,  # type: ignore[arg-type]
        ranking=ranking,
        sizes=tuple(float(size) for size in sizes),
        faithfulness=tuple(map(_finite, f)),
        cpr=area.cpr if area else None,
        cmd=area.cmd if area else None,
        control=tuple(map(_finite, random)),
    )


def circuit_quality(
    task: str,
    level: Level,
    units: Sequence[Unit],
    metric: str,
    model: float,
    circuit: float,
    empty: float,
    subsets: Mapping[str, tuple[float, float]] | None = None,
    minimal: np.ndarray | None = None,
) -> CircuitQuality:
    """Return faithfulness, completeness and minimality of one circuit.

    Args:
        task, level, units, metric: of the circuit.
        model, circuit, empty: F(M), F(C) and the metric with everything ablated.
        subsets: what K is → (F(C without K), F(M without K)).
        minimal: `[units]` of `analyses.faithfulness.minimality`, NaN where missing.
    """
    held = subsets or {}
    gaps = incompleteness(np.array([c for c, _ in held.values()]), np.array([m for _, m in held.values()]))
    return CircuitQuality(
        task=task,
        level=level,
        units=tuple(map(str, units)),
        metric=metric,
        model=model,
        circuit=circuit,
        empty=empty,
        faithfulness=_finite(float(faithfulness(circuit, empty, model))),
        completeness=tuple(
            SubsetTest(subset=name, circuit=c, model=m, gap=float(gap))
            for (name, (c, m)), gap in zip(held.items(), gaps, strict=True)
        ),
        minimality={} if minimal is None else {str(unit): _finite(v) for unit, v in zip(units, minimal, strict=True)},
    )


def circuit_overlap(
    info: ModelInfo,
    level: Level,
    tasks: tuple[str, str],
    chosen: tuple[Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]],
    shape: tuple[int, ...],
    measured: np.ndarray | None = None,
) -> CircuitOverlap:
    """Return what two circuits share, against chance.

    Args:
        info: the model.
        level: of both circuits.
        tasks: that they were chosen for.
        chosen: indices of their units.
        shape: of all units.
        measured: bool of that shape, units that could have been chosen; None means all.
    """
    masks = [unit_mask(units, shape) for units in chosen]
    found = overlap(masks[0], masks[1], measured)
    both = [tuple(int(i) for i in index) for index in np.argwhere(masks[0] & masks[1])]
    return CircuitOverlap(
        first=tasks[0],
        second=tasks[1],
        level=level,
        n_units=found.heads,
        sizes=(found.first, found.second),
        shared=tuple(map(str, named(info, level, shape, both))),
        jaccard=found.jaccard,
        expected=found.expected,
        p=found.p_value,
        layer_expected=found.layer_expected,
        layer_p=found.layer_p_value,
    )


def top_edges(task: str, scored: Iterable[tuple[str, str, float]], most: int = 60) -> tuple[Edge, ...]:
    """Return the edges with the largest |score|, the largest first.

    Args:
        task: that they were scored on.
        scored: (source, target, score); nodes are unit names, `embedding` and `logits`.
        most: edges.
    """
    rows = sorted(scored, key=lambda row: (-abs(row[2]), row[0], row[1]))[:most]
    return tuple(Edge(task=task, source=a, target=b, score=float(value)) for a, b, value in rows)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
