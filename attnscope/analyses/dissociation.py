"""Double dissociation: does each of two circuits serve its own task and not the other (2510.03366)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.errors import StatisticsError
from .intervals import resampled_means
from .paired import Change, paired_change, same_prompts

Verdict = Literal["double", "first only", "second only", "none"]
Pair = tuple[np.ndarray, np.ndarray]
"""Values of the first task's prompts and of the second task's."""


@dataclass(frozen=True)
class OneWay:
    """One circuit's ablation, on the task it was chosen for and on the other.

    Attributes:
        own, other: drop of accuracy (baseline minus ablated) on its own task and on the other.
        delta: own minus other.
        control: own drop, other drop and delta of every random draw; empty without a control.
        selective: own drop at least `least_drop` and other drop at most `most_other`.
        certain: the interval of delta is above 0 and delta above that of every draw; None without interval or control.
    """

    own: Change
    other: Change
    delta: Change
    control: tuple[tuple[float, float, float], ...]
    selective: bool
    certain: bool | None


@dataclass(frozen=True)
class DoubleDissociation:
    """Both circuits, each ablated alone; thresholds are shares of right answers, 0..1."""

    first: OneWay
    second: OneWay
    least_drop: float
    most_other: float

    @property
    def verdict(self) -> Verdict:
        """Which circuits are selective by the thresholds."""
        return verdict(self.first.selective, self.second.selective)


def verdict(first: bool, second: bool) -> Verdict:
    """Return the verdict on two circuits by whether each is selective.

    Example:
        >>> verdict(True, True), verdict(False, True)
        ('double', 'second only')
    """
    if first and second:
        return "double"
    return "first only" if first else "second only" if second else "none"


def double_dissociation(
    baseline: Pair,
    without_first: Pair,
    without_second: Pair,
    control_first: Pair | None = None,
    control_second: Pair | None = None,
    *,
    least_drop: float = 0.15,
    most_other: float = 0.03,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> DoubleDissociation:
    """Return what two circuits cost on two tasks.

    Delta of the first circuit is [acc_A(base) - acc_A(without first)] - [acc_B(base) - acc_B(without first)];
    that of the second is the mirror. Prompts of A and B are resampled independently.

    Args:
        baseline: ([P_A], [P_B]) right answers, 0..1, of the untouched model on each task.
        without_first, without_second: the same with the first or second circuit ablated.
        control_first, control_second: ([draws, P_A], [draws, P_B]) with as many random others of the same layers.
        least_drop: a circuit must cost its own task at least this, 0..1.
        most_other: and the other task at most this, 0..1.
        level: coverage of the intervals of delta.
        resamples: bootstrap draws.
        seed: of the draws.

    Raises:
        StatisticsError: the prompts or draws do not match, or none was measured.

    Example:
        >>> ones, zeros = np.ones(8), np.zeros(8)
        >>> found = double_dissociation((ones, ones), (zeros, ones), (ones, zeros))
        >>> found.first.delta.value, found.verdict
        (1.0, 'double')
    """

    def one_way(own: int, ablated: Pair, control: Pair | None) -> OneWay:
        other = 1 - own
        drops = [paired_change(ablated[i], baseline[i], resamples, seed) for i in (own, other)]
        gaps = [np.asarray(baseline[i], dtype=np.float64) - ablated[i] for i in (own, other)]
        delta = _difference(gaps[0], gaps[1], level, resamples, seed)
        draws = () if control is None else _controls(baseline, control, own)
        above = not np.isnan(delta.low) and bool(draws)
        return OneWay(
            own=drops[0],
            other=drops[1],
            delta=delta,
            control=draws,
            selective=_at_least(drops[0].value, least_drop) and _at_least(most_other, drops[1].value),
            certain=delta.low > 0 and delta.value > max(draw[2] for draw in draws) if above else None,
        )

    return DoubleDissociation(
        one_way(0, without_first, control_first), one_way(1, without_second, control_second), least_drop, most_other
    )


def _at_least(value: float, least: float) -> bool:
    """Compare shares of prompts, so that 15 of 100 lost reach 0.15 whatever their rounding."""
    return value >= least - 1e-9


def _difference(first: np.ndarray, second: np.ndarray, level: float, resamples: int, seed: int) -> Change:
    a, b = first[~np.isnan(first)], second[~np.isnan(second)]
    low = high = float("nan")
    if min(len(a), len(b)) >= 2:
        means = resampled_means(a[:, None], resamples, seed) - resampled_means(b[:, None], resamples, seed + 1)
        low, high = (float(v) for v in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    return Change(float(a.mean() - b.mean()), low, high, len(a) + len(b))


def _controls(baseline: Pair, control: Pair, own: int) -> tuple[tuple[float, float, float], ...]:
    if len(control[0]) != len(control[1]):
        raise StatisticsError(
            "random draws on the two tasks",
            found=f"{len(control[0])} and {len(control[1])}",
            expected="the same draws on both",
        )
    found = []
    for draw in zip(*control, strict=True):
        for whole, ablated in zip(baseline, draw, strict=True):
            same_prompts(whole, ablated)
        drops = [float(np.nanmean(whole - ablated)) for whole, ablated in zip(baseline, draw, strict=True)]
        found.append((drops[own], drops[1 - own], drops[own] - drops[1 - own]))
    return tuple(found)
