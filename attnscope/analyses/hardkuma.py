"""Closed forms of the HardKuma distribution: z = clip(−0.1 + 1.2 s, 0, 1), s = (1 − (1 − u)^(1/b))^(1/a)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import beta, betainc

from ..core.errors import StatisticsError

LOW, HIGH = -0.1, 1.1


def zero_probability(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return P(z = 0) = 1 − (1 − (1/12)^a)^b.

    Args:
        a: positive shape parameters, any shape.
        b: the same shape.

    Raises:
        StatisticsError: a parameter that is not positive.

    Example:
        >>> round(float(zero_probability(1.0, 1.0)), 4)
        0.0833
    """
    return 1 - _above(*_checked(a, b), 0.0)


def one_probability(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return P(z = 1) = (1 − (11/12)^a)^b; arguments and errors as in `zero_probability`.

    Example:
        >>> round(float(one_probability(1.0, 1.0)), 4)
        0.0833
    """
    return _above(*_checked(a, b), 1.0)


def class_statistic(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return b·B(1 + 1/a, b), the mean of the variable before it is stretched and clipped.

    LycheeDecode calls a head a retrieval head where this is above 0.5 (2602.04541). It is not the mean of the gate:
    see `mean`. Arguments and errors as in `zero_probability`.

    Example:
        >>> round(float(class_statistic(1.0, 3.0)), 4)
        0.25
    """
    first, second = _checked(a, b)
    return second * beta(1 + 1 / first, second)


def mean(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return E[z] = ∫ P(z > t) dt over 0..1, by the incomplete beta function.

    Arguments and errors as in `zero_probability`.

    Example:
        >>> mean([1.0, 1.0], [1.0, 3.0]).round(4).tolist()
        [0.5, 0.2118]
    """
    first, second = _checked(a, b)
    low, high = (((edge - LOW) / (HIGH - LOW)) ** first for edge in (0.0, 1.0))
    shape = (1 / first, second + 1)
    share = betainc(*shape, high) - betainc(*shape, low)
    return (HIGH - LOW) / first * beta(*shape) * share


def _above(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Return P(−0.1 + 1.2 s > t)."""
    return (1 - ((t - LOW) / (HIGH - LOW)) ** a) ** b


def _checked(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not ((first > 0).all() and (second > 0).all()):
        raise StatisticsError("HardKuma parameters", found="values that are not positive", expected="a > 0 and b > 0")
    return first, second
