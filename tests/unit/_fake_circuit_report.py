"""A circuit report of a made-up model: recall and reasoning heads planted in arrays, text that tries to harm."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from _fake_report import fake_info, fake_provenance

from attnscope.analyses.circuits import Effects, circuits_at, effects
from attnscope.analyses.dissociation import double_dissociation
from attnscope.analyses.faithfulness import MIB_SIZES
from attnscope.core.circuit_report import CircuitReport, LevelResult
from attnscope.reports import circuit_quality as q
from attnscope.reports import circuit_tests as t
from attnscope.reports.circuits import chosen_circuit, circuit_task, level_result, named

LAYERS, HEADS, NEURONS, PROMPTS, DRAWS = 10, 8, 64, 60, 5
TASKS = ("recall", "reasoning")
PLANTED = {
    "recall": {(2, 5): 1.9, (4, 1): 1.2, (6, 3): 0.8, (7, 7): 0.45},
    "reasoning": {(3, 2): 1.6, (5, 6): 1.1, (8, 0): 0.7, (6, 3): 0.5},
}
NOTE = "Facts were <script>alert('note')</script> and $x$."
REASON = "screened <b>out</b> by atp"
EDIT = "Attention of <i>four</i> heads forced to the answer"
HELPS = (9, 4)
"""A head whose ablation helps both tasks."""


def _edited(shape: tuple[int, int], planted: dict[tuple[int, int], float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    baseline = -0.4 + 0.2 * rng.standard_normal(PROMPTS)
    edited = baseline[:, None, None] - 0.06 * rng.standard_normal((PROMPTS, *shape))
    edited -= 0.005 * rng.standard_normal(shape)
    for unit, size in planted.items():
        edited[:, *unit] -= size * rng.uniform(0.6, 1.4, PROMPTS)
    return baseline, edited


def head_effects(screened: bool = False) -> dict[str, Effects]:
    found = {}
    for i, task in enumerate(TASKS):
        baseline, edited = _edited((LAYERS, HEADS), PLANTED[task] | {HELPS: -0.3}, i)
        if screened:
            kept = np.zeros((LAYERS, HEADS), dtype=bool)
            for unit in (*PLANTED["recall"], *PLANTED["reasoning"], HELPS, (0, 0), (1, 1)):
                kept[unit] = True
            edited[:, ~kept] = np.nan
        found[task] = effects(baseline, edited)
    return found


def _level(level: str, screened: bool = False) -> LevelResult:
    info = fake_info(LAYERS, HEADS, 4)
    common = {"metric": "answer log-probability", "metric_units": "nat", "ablation": "mean", "n_selection": PROMPTS}
    if level == "head":
        extra = {}
        found = head_effects(screened)
        if screened:
            whole = head_effects()
            rng = np.random.default_rng(7)
            extra = {
                "screen": "atp",
                "screened": {k: v.mean + 0.05 * rng.standard_normal(v.mean.shape) for k, v in whole.items()},
                "gradient_at": "clean",
                "forwards": 3.0,
                "reason": REASON,
            }
        copying = np.random.default_rng(1).beta(2, 5, (LAYERS, HEADS))
        return level_result(info, "head", found, scores={"copying": copying}, **common, **extra)
    if level == "layer":
        planted = {"recall": {(2, 1): 2.4, (3, 1): 1.1, (4, 0): 1.3}, "reasoning": {(5, 0): 1.8, (8, 0): 0.9}}
        found = {task: effects(*_edited((LAYERS, 2), planted[task], 10 + i)) for i, task in enumerate(TASKS)}
        return level_result(info, "layer", found, **common)
    planted = {"recall": {(2, 7): 0.8, (3, 40): 0.5}, "reasoning": {(7, 21): 0.6}}
    found = {
        task: effects(*_edited((LAYERS, NEURONS), planted[task], 20 + i), test="wilcoxon")
        for i, task in enumerate(TASKS)
    }
    return level_result(info, "neuron", found, keep=40, test="wilcoxon", **common)


def _answers(share: float, seed: int, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).permutation((np.arange(n) < round(share * n)).astype(float))


def _lose(right: np.ndarray, drop: float) -> np.ndarray:
    left = right.copy()
    left[np.flatnonzero(right)[: max(0, round(drop * len(right)))]] = 0
    return left


def _circuits(report: dict) -> None:
    info, shape = fake_info(LAYERS, HEADS, 4), (LAYERS, HEADS)
    found = head_effects()
    base = _answers(0.92, 1), _answers(0.83, 2)
    rng = np.random.default_rng(5)
    sizes = (1, 2, 4, 8)
    chosen = {task: circuits_at(sizes, found[task].mean, found[TASKS[1 - i]].mean) for i, task in enumerate(TASKS)}
    report["circuits"] = tuple(
        chosen_circuit(task, "head", "selective", named(info, "head", shape, chosen[task][size]), PROMPTS)
        for task in TASKS
        for size in sizes
    )
    own = {1: 0.18, 2: 0.36, 4: 0.55, 8: 0.7}
    curves = []
    for i, circuit in enumerate(TASKS):
        for j, task in enumerate(TASKS):
            for size in sizes:
                drop = own[size] if i == j else 0.005 * size
                draws = [_lose(base[j], 0.008 * size + abs(0.01 * rng.standard_normal())) for _ in range(DRAWS)]
                units = named(info, "head", shape, chosen[circuit][size])
                controls = np.stack(draws) if size < 8 or i else None
                curves.append(
                    t.circuit_drop("head", "selective", circuit, task, units, base[j], _lose(base[j], drop), controls)
                )
    report["curves"] = tuple(curves)
    dissociations = []
    for level, drops in (("head", ((0.55, 0.02), (0.015, 0.42))), ("neuron", ((0.2, 0.01), (0.09, 0.11)))):
        sides = [tuple(_lose(b, d) for b, d in zip(base, pair, strict=True)) for pair in drops]
        draws = tuple(
            np.stack([_lose(b, 0.03 + 0.012 * (k * (i + 1) % 4)) for k in range(DRAWS)]) for i, b in enumerate(base)
        )
        result = double_dissociation(base, *sides, draws, draws if level == "head" else None)
        units = tuple(named(info, "head", shape, chosen[task][4]) for task in TASKS)
        if level == "neuron":
            units = tuple(named(info, "neuron", (LAYERS, NEURONS), [(2, 7 + k), (3, 40)]) for k in range(2))
        dissociations.append(t.dissociation(level, "selective", "mean", TASKS, units, result, level == "head"))
    report["dissociations"] = tuple(dissociations)
    report["overlaps"] = (q.circuit_overlap(info, "head", TASKS, (chosen["recall"][8], chosen["reasoning"][8]), shape),)
    report["quality"] = tuple(_quality(task, named(info, "head", shape, chosen[task][4])) for task in TASKS)
    report["transfers"] = (
        t.transfer(
            EDIT,
            "reasoning",
            "recall",
            named(info, "head", shape, chosen["reasoning"][4]),
            _answers(0.5, 3),
            _answers(0.93, 4),
            np.stack([_answers(0.3 + 0.05 * k, 6 + k) for k in range(3)]),
        ),
        t.transfer(EDIT, "recall", "reasoning", [], _answers(0.5, 3), _answers(0.52, 4)),
    )


def _quality(task: str, units: list) -> object:
    subsets = {"the two <b>first</b> heads": (0.9, 1.1), "the last head": (2.4, 2.7)}
    minimal = np.array([0.9, 0.5, 0.2, np.nan])
    return q.circuit_quality(task, "head", units, "logit difference", 3.1, 2.9, 0.1, subsets, minimal)


def _curve(task: str, steep: float, control: bool) -> object:
    x = np.array(MIB_SIZES)
    values = 0.2 + 3.0 * (1 - np.exp(-steep * x)) / (1 - np.exp(-steep))
    draws = np.stack([0.2 + 3.0 * x**2, 0.2 + 3.0 * x**1.5]) if control else None
    return q.faithfulness_curve(task, "head", "atp", MIB_SIZES, values, 0.2, 3.2, draws)


def _edges() -> tuple:
    recall = [
        ("embedding", "L2H5", 0.9), ("embedding", "mlp 0", 0.5), ("mlp 0", "L2H5", 0.6), ("L2H5", "mlp 2", 0.7),
        ("mlp 2", "L4H1", 0.8), ("L2H5", "L4H1", 0.4), ("L4H1", "L6H3", 0.35), ("L4H1", "logits", 0.75),
        ("L6H3", "logits", 0.5), ("mlp 2", "logits", 0.3), ("L9H4", "logits", -0.45), ("L6H3", "L9H4", -0.2),
        ("L2H5", "L7H7", 0.15), ("L7H7", "logits", 0.2), ("L4H1", "L9H4", -0.1),
    ]  # fmt: skip
    reasoning = [("embedding", "L3H2", 0.6), ("L3H2", "L5H6", 0.7), ("L5H6", "L8H0", 0.4), ("L8H0", "logits", 0.8)]
    return q.top_edges("recall", recall) + q.top_edges("reasoning", reasoning)


@lru_cache(maxsize=4)
def fake_circuit_report(kind: str = "full") -> CircuitReport:
    """Return a report: `full`, `screened` (heads screened, then part measured), or `bare` (one task, heads alone)."""
    rng = np.random.default_rng(0)
    metrics = {task: -0.4 + 0.2 * rng.standard_normal(PROMPTS) for task in TASKS}
    tasks = tuple(
        circuit_task(task, _answers(0.9, i), metrics[task], metrics[task] - 3 if kind != "bare" else None, (24,))
        for i, task in enumerate(TASKS)
    )
    report: dict = {
        "model": fake_info(LAYERS, HEADS, 4),
        "tasks": tasks,
        "levels": (_level("head", kind == "screened"),),
        "provenance": fake_provenance(),
        "notes": (NOTE,),
    }
    if kind == "bare":
        head = report["levels"][0]
        units = [u.model_copy(update={"effects": {"recall": u.effects["recall"]}}) for u in head.units]
        report |= {"tasks": tasks[:1], "levels": (head.model_copy(update={"units": tuple(units)}),)}
        report["missing"] = {"curves": "no <b>circuit</b> was chosen"}
    if kind == "full":
        report["levels"] += (_level("layer"), _level("neuron"))
        report["faithfulness"] = (_curve("recall", 12.0, True), _curve("reasoning", 5.0, False))
        report |= {"edges": _edges(), "edge_method": "eap-ig"}
        _circuits(report)
    return CircuitReport(**report)
