"""Accuracy under budgets of full KV heads: ours, random choices and all full, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import norm

from ..core.errors import StatisticsError
from .intervals import bootstrap_mean


POINTS = 0.03
"""How far below all full a choice may be to count as close, as a share of all answers."""


@dataclass(frozen=True)
class Share:
    """A share of right answers, 0..1, with its interval.

    Attributes:
        value: right answers over all.
        low: lower end of the 95% interval.
        high: upper end.
        n: what the interval is over: prompts, or draws of a random choice.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class BudgetRow:
    """One choice of full KV heads at one budget and prompt length.

    Attributes:
        choice: `all full`, `ours`, `random` or another name.
        length: tokens a prompt.
        budget: share of KV heads that are full.
        n_full: full KV heads.
        accuracy: of prompts answered (Wilson's interval), or over draws (bootstrap of the draws' means).
        difference: to all full on the same prompts, with a bootstrap interval over prompts, or over draws.
        draws: random choices; 1 where the choice is not random.
        close: how many of them lose at most POINTS against all full.
        kept: share of the full cache's tokens that is kept at this length, 0..1.
    """

    choice: str
    length: int
    budget: float
    n_full: int
    accuracy: Share
    difference: Share
    draws: int
    close: int
    kept: float


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion.

    Raises:
        StatisticsError: no trials, or more right answers than trials.

    Example:
        >>> [round(x, 3) for x in wilson(40, 40)]
        [0.912, 1.0]
    """
    if n < 1 or not 0 <= right <= n:
        raise StatisticsError("right answers", found=f"{right} of {n}", expected="0 to n of at least one")
    z = float(norm.ppf(0.5 + level / 2))
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def budget_row(
    choice: str, length: int, budget: float, n_full: int, kept: float, right: np.ndarray, baseline: np.ndarray
) -> BudgetRow:
    """Return one row from right and wrong answers.

    Args:
        right: `[prompts, draws]` 0 or 1; one draw where the choice is not random.
        baseline: `[prompts]` of all full, on the same prompts.

    Raises:
        StatisticsError: shapes that do not fit.

    Example:
        >>> row = budget_row("ours", 64, 0.5, 2, 0.6, np.array([[1.0], [0.0]]), np.array([1.0, 1.0]))
        >>> row.accuracy.value, row.difference.value, row.close
        (0.5, -0.5, 0)
    """
    if right.ndim != 2 or not right.size or baseline.shape != right.shape[:1]:
        found = f"{right.shape} and {baseline.shape}"
        raise StatisticsError("right answers", found=found, expected="[prompts, draws] and [prompts]")
    prompts, draws = right.shape
    change = right - baseline[:, None]
    if draws == 1:
        low, high = wilson(int(right.sum()), prompts)
        accuracy = Share(float(right.mean()), low, high, prompts)
        difference = _bootstrapped(change[:, 0])
    else:
        accuracy, difference = _bootstrapped(right.mean(0)), _bootstrapped(change.mean(0))
    close = int((change.mean(0) >= -POINTS - 1e-12).sum())
    return BudgetRow(choice, length, budget, n_full, accuracy, difference, draws, close, kept)


def _bootstrapped(values: np.ndarray) -> Share:
    low, high = bootstrap_mean(values)
    return Share(float(values.mean()), float(low), float(high), len(values))
