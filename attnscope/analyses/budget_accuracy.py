"""Accuracy under budgets of full KV heads, with intervals, beside all full."""

from __future__ import annotations

from math import sqrt

import numpy as np
from scipy.stats import norm

from ..core.decode_report import BudgetRow
from ..core.errors import StatisticsError
from ..core.report import Interval, Measured
from .intervals import bootstrap_mean

POINTS = 0.03
"""How far below all full a choice may be to count as close, as a share of all answers."""


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
    choice: str,
    length: int,
    budget: float,
    n_full: int,
    kept: float,
    right: np.ndarray,
    baseline: np.ndarray,
    prompt_set: str = "needle",
) -> BudgetRow:
    """Return one row from right and wrong answers.

    A single choice has Wilson's interval over prompts and a paired bootstrap of the difference; random choices have
    bootstraps over draws, each draw's mean over all prompts one value.

    Args:
        choice: its name.
        length: tokens a prompt.
        budget: share of KV heads that are full.
        n_full: full KV heads.
        kept: share of the cache that is kept, 0..1.
        right: `[prompts, draws]` 0 or 1; one draw where the choice is not random.
        baseline: `[prompts]` of all full, on the same prompts.
        prompt_set: its name.

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
    change = right - baseline[:, None]
    draws = right.shape[1]
    over = "bootstrap over prompts" if draws == 1 else "bootstrap over draws"
    if draws == 1:
        low, high = wilson(int(right.sum()), len(right))
        accuracy = Interval(low=low, high=high, method="Wilson over prompts")
    else:
        accuracy = _bootstrapped(right.mean(0), over)
    difference = _bootstrapped(change[:, 0] if draws == 1 else change.mean(0), over)

    def measured(values: np.ndarray, interval: Interval | None) -> Measured:
        return Measured(
            value=float(values.mean()), n=len(right), units="1", prompt_set=prompt_set, interval=interval
        )

    return BudgetRow(
        choice=choice,
        length=length,
        budget=budget,
        n_full=n_full,
        accuracy=measured(right, accuracy),
        difference=measured(change, difference),
        draws=draws,
        close=int((change.mean(0) >= -POINTS - 1e-12).sum()),
        kept=kept,
    )


def _bootstrapped(values: np.ndarray, method: str) -> Interval | None:
    low, high = bootstrap_mean(values)
    return None if np.isnan(low) else Interval(low=float(low), high=float(high), method=method)
