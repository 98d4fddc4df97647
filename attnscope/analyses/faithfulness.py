"""How well a circuit stands for the model: faithfulness, completeness, minimality, CPR and CMD, recovery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import StatisticsError

MIB_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Circuit sizes as shares of all edges or nodes (2504.13151)."""


@dataclass(frozen=True)
class Areas:
    """Area under a faithfulness curve.

    Attributes:
        cpr: integral of f, the circuit performance ratio; higher is better.
        cmd: integral of |1 - f|, the circuit-model distance; 0 is best.
        start, end: sizes between which was integrated.
    """

    cpr: float
    cmd: float
    start: float
    end: float


def faithfulness(circuit: np.ndarray | float, empty: float, whole: float) -> np.ndarray:
    """Return f = (m(C) - m(none)) / (m(N) - m(none)); 1 is the whole model, 0 everything ablated (2504.13151).

    Args:
        circuit: metric with all but the circuit ablated, of any shape.
        empty: metric with everything ablated.
        whole: metric of the untouched model.

    Returns:
        The same shape; NaN where whole equals empty, so that f is not defined.

    Example:
        >>> faithfulness(np.array([1.0, 2.0, 5.0]), empty=1.0, whole=3.0)
        array([0. , 0.5, 2. ])
    """
    return _ratio(np.asarray(circuit, dtype=np.float64) - empty, np.asarray(whole - empty))


def areas(sizes: Sequence[float], values: Sequence[float] | np.ndarray) -> Areas:
    """Return CPR and CMD as MIB's code integrates them: trapezoids between the sizes given, on a linear axis.

    Nothing is added below the first size; with MIB_SIZES the integral runs from 0.001 to 1, so that a perfect curve
    has a CPR of 0.999. CMD's trapezoids join |1 - f| at the sizes, also where f crosses 1 between them (2504.13151).

    Args:
        sizes: shares of all units, ascending, 0..1.
        values: f at each size.

    Raises:
        StatisticsError: fewer than two sizes, sizes that do not ascend or leave 0..1, or f missing somewhere.

    Example:
        >>> areas([0.0, 0.5, 1.0], [0.0, 1.0, 1.0])
        Areas(cpr=0.75, cmd=0.25, start=0.0, end=1.0)
    """
    x, f = np.asarray(sizes, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != f.shape or x.ndim != 1 or len(x) < 2:
        raise StatisticsError(
            "circuit sizes", found=f"{x.shape} for values {f.shape}", expected="one f for each of at least 2 sizes"
        )
    if (np.diff(x) <= 0).any() or x[0] < 0 or x[-1] > 1:
        raise StatisticsError("circuit sizes", found=x.tolist(), expected="ascending shares of all units, 0..1")
    if np.isnan(f).any():
        raise StatisticsError("faithfulness", found="NaN at some size", expected="a value at every size")
    return Areas(float(np.trapezoid(f, x)), float(np.trapezoid(np.abs(1 - f), x)), float(x[0]), float(x[-1]))


def incompleteness(circuit_without: np.ndarray, model_without: np.ndarray) -> np.ndarray:
    """Return |F(C without K) - F(M without K)| for every subset K of the circuit (2211.00593).

    A complete circuit loses what the model loses, so that all values are near 0; the largest one is the score.

    Args:
        circuit_without: `[subsets]` metric with all but C, and K too, ablated.
        model_without: `[subsets]` metric of the model with K ablated.

    Raises:
        StatisticsError: different shapes.

    Example:
        >>> incompleteness(np.array([3.0, 1.0]), np.array([3.5, 2.5]))
        array([0.5, 1.5])
    """
    _same(circuit_without, model_without)
    return np.abs(np.asarray(circuit_without, dtype=np.float64) - model_without)


def minimality(circuit_without: np.ndarray, and_unit: np.ndarray) -> np.ndarray:
    """Return, for every unit v of a circuit, the largest |F(C without K and v) - F(C without K)| over K (2211.00593).

    A unit whose value is near 0 for every K tried does nothing in the circuit. It is a lower bound: other sets K may
    show more.

    Args:
        circuit_without: `[units, sets]` metric with all but C, and K too, ablated.
        and_unit: `[units, sets]` the same with v ablated as well.

    Returns:
        `[units]`, NaN where no set was measured.

    Raises:
        StatisticsError: different shapes.

    Example:
        >>> minimality(np.array([[3.0, 2.0], [3.0, 2.0]]), np.array([[1.5, 2.0], [3.0, np.nan]]))
        array([1.5, 0. ])
    """
    _same(circuit_without, and_unit)
    gaps = np.abs(np.asarray(circuit_without, dtype=np.float64) - and_unit)
    measured = ~np.isnan(gaps)
    return np.where(measured.any(-1), np.where(measured, gaps, -np.inf).max(-1, initial=-np.inf), np.nan)


def recovery(clean: np.ndarray | float, corrupt: np.ndarray | float, patched: np.ndarray | float) -> np.ndarray:
    """Return 100 (patched - corrupt) / (clean - corrupt), percent (2510.03366).

    For many prompts take means first; a mean of ratios is ruled by prompts whose clean and corrupt values are close.

    Args:
        clean, corrupt, patched: metric, of shapes that fit each other.

    Returns:
        Percent; NaN where clean equals corrupt.

    Example:
        >>> recovery(4.0, 2.0, np.array([2.0, 3.5]))
        array([ 0., 75.])
    """
    low = np.asarray(corrupt, dtype=np.float64)
    return 100 * _ratio(np.asarray(patched, dtype=np.float64) - low, np.asarray(clean, dtype=np.float64) - low)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)


def _same(first: np.ndarray, second: np.ndarray) -> None:
    if np.shape(first) != np.shape(second):
        raise StatisticsError(
            "metric values", found=f"shapes {np.shape(first)} and {np.shape(second)}", expected="one shape"
        )
