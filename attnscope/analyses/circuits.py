"""Circuits from effects: what each unit's ablation costs, and the units chosen on prompts of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import StatisticsError
from .intervals import bootstrap_mean
from .paired import Test, false_discovery, p_values

_CHUNK = 4096


@dataclass(frozen=True)
class Effects:
    """Mean drop of a metric when a unit is edited; every array has the shape of the units, NaN where missing.

    Attributes:
        mean: baseline minus edited, over the prompts measured both times.
        low, high: 95% bootstrap interval over prompts.
        p: two-sided, paired over prompts.
        q: Benjamini and Hochberg's, over all units that were measured.
        n: prompts.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    q: np.ndarray
    n: np.ndarray


def effects(
    baseline: np.ndarray, edited: np.ndarray, test: Test = "sign-flip", resamples: int = 1000, seed: int = 0
) -> Effects:
    """Return every unit's effect: the mean drop over prompts, with interval, p-value and q-value.

    Args:
        baseline: `[prompts]` of the unedited model.
        edited: `[prompts, units...]` with one unit edited; a unit that was not measured is NaN.
        test: see `analyses.paired.p_values`.
        resamples: bootstrap draws.
        seed: of all draws.

    Raises:
        StatisticsError: the prompts do not match, or there is no such test.

    Example:
        >>> found = effects(np.ones(8), np.stack([np.zeros(8), np.ones(8), np.full(8, np.nan)], axis=1))
        >>> found.mean, found.p, found.q
        (array([ 1.,  0., nan]), array([0.0078125, 1. , nan]), array([0.015625, 1. , nan]))
    """
    if np.ndim(baseline) != 1 or len(edited) != len(baseline):
        raise StatisticsError(
            "edited values", found=f"shape {edited.shape} for a baseline of {np.shape(baseline)}",
            expected="[prompts, units...] of the same prompts",
        )  # fmt: skip
    shape = edited.shape[1:]
    drop = np.asarray(baseline, dtype=np.float64)[:, None] - edited.reshape(len(edited), -1)
    measured = ~np.isnan(drop)
    n = measured.sum(0)
    total = np.where(measured, drop, 0.0).sum(0)
    mean = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
    bounds = np.full((2, len(n)), np.nan)
    for start in range(0, len(n), _CHUNK):
        own = slice(start, start + _CHUNK)
        bounds[:, own] = bootstrap_mean(drop[:, own], resamples=resamples, seed=seed)
    p = p_values(drop, test, seed)
    columns = (mean, bounds[0], bounds[1], p, false_discovery(p), n)
    return Effects(*(column.reshape(shape) for column in columns))


def halves(n: int, groups: Sequence[object] | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split prompts at random into those that choose a circuit and those that test it.

    Args:
        n: prompts.
        groups: of each prompt; prompts of one group (one fact, one template) stay together.
        seed: of the split.

    Returns:
        Sorted indices of the selection half and of the evaluation half.

    Raises:
        StatisticsError: fewer than two prompts or groups, or a group is missing for some prompts.

    Example:
        >>> first, second = halves(6, groups="aabbcc")
        >>> len(first) + len(second), set("aabbcc"[i] for i in first) & set("aabbcc"[i] for i in second)
        (6, set())
    """
    keys = list(range(n)) if groups is None else list(groups)
    if len(keys) != n:
        raise StatisticsError("groups of prompts", found=len(keys), expected=f"one for each of {n} prompts")
    names = list(dict.fromkeys(keys))
    if len(names) < 2:
        raise StatisticsError("prompts or groups to split", found=len(names), expected="at least 2")
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = {names[i] for i in order[: len(names) // 2]}
    inside = np.array([key in chosen for key in keys])
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def selective(effect: np.ndarray, other: np.ndarray, most: float = 0.2) -> np.ndarray:
    """Return the effects of the units that serve one task and hardly the other, NaN for all others.

    Ranking by effect minus other effect would keep units that both tasks need, where one needs them a little more.

    Args:
        effect: `[units...]` on the circuit's task, NaN where missing.
        other: on the other task.
        most: the other effect may be at most this part of the own one, 0..1.

    Raises:
        StatisticsError: different shapes.

    Example:
        >>> selective(np.array([13.0, 6.0, -1.0]), np.array([12.0, 0.5, 0.0]))
        array([nan,  6., nan])
    """
    if other.shape != effect.shape:
        raise StatisticsError("effects", found=f"shapes {effect.shape} and {other.shape}", expected="one shape")
    kept = (effect > 0) & (other <= most * effect)
    return np.where(kept, effect, np.nan)


def ranked(effect: np.ndarray, other: np.ndarray | None = None) -> list[tuple[int, ...]]:
    """Return units from the largest effect down; ties go to the earlier unit, what was not measured is left out.

    Args:
        effect: `[units...]`, NaN where missing.
        other: effect on another task; given, units rank by effect minus other, which picks the selective ones.

    Raises:
        StatisticsError: different shapes.

    Example:
        >>> ranked(np.array([[0.1, 0.5], [0.4, np.nan]]), np.array([[0.0, 0.45], [0.0, 0.0]]))
        [(1, 0), (0, 0), (0, 1)]
    """
    if other is not None and other.shape != effect.shape:
        raise StatisticsError("effects", found=f"shapes {effect.shape} and {other.shape}", expected="one shape")
    score = (effect if other is None else effect - other).ravel()
    order = np.argsort(np.where(np.isnan(score), np.inf, -score), kind="stable")
    kept = order[: int((~np.isnan(score)).sum())]
    return [tuple(int(i) for i in np.unravel_index(unit, effect.shape)) for unit in kept]


def circuits_at(
    sizes: Sequence[int], effect: np.ndarray, other: np.ndarray | None = None
) -> dict[int, tuple[tuple[int, ...], ...]]:
    """Return the first units of a ranking at each size, so that a smaller circuit is part of a larger one.

    Args:
        sizes: units a circuit.
        effect, other: see `ranked`; take them from the selection half alone.

    Raises:
        StatisticsError: a size below 1, or above the units that were measured.

    Example:
        >>> circuits_at([1, 2], np.array([0.1, 0.5, 0.4]))
        {1: ((1,),), 2: ((1,), (2,))}
    """
    order = ranked(effect, other)
    for size in sizes:
        if not 1 <= size <= len(order):
            raise StatisticsError("units of a circuit", found=size, expected=f"1 to {len(order)}, those measured")
    return {size: tuple(order[:size]) for size in sizes}


def unit_mask(units: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> np.ndarray:
    """Return which units a circuit holds, as `analyses.compare.overlap` takes it.

    Args:
        units: indices.
        shape: of all units, as (layers, heads).

    Example:
        >>> unit_mask([(0, 1)], (1, 2))
        array([[False,  True]])
    """
    mask = np.zeros(shape, dtype=bool)
    for unit in units:
        mask[unit] = True
    return mask
