"""Sums over static rows against the plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from attnscope.collectors._static_rows import pairs_in_bins, sum_of_logs, summed_log_totals
from attnscope.core.batch import DISTANCE_GRID

EDGES = np.array(DISTANCE_GRID)


def keys_of(lengths: list[int], window: int | None) -> np.ndarray:
    return np.minimum(lengths, window or max(lengths))


@pytest.mark.parametrize("start", [1e-300, 1e-9, 0.3, 1.0, 1e12])
@pytest.mark.parametrize("slope", [0.0, 1e-320, 1e-15, 1e-4, 1.0, 1e6])
@pytest.mark.parametrize("steps", [0, 1, 16, 17, 100, 5000])
def test_sum_of_logs(start: float, slope: float, steps: int) -> None:
    found = sum_of_logs(np.array(start), np.array(slope), np.array(steps))
    expected = np.log(start + slope * np.arange(1, steps + 1, dtype=np.longdouble)).sum()
    np.testing.assert_allclose(found, float(expected), rtol=1e-13, atol=1e-11)


@pytest.mark.parametrize("window", [None, 1, 50, 100, 128, 1000])
def test_pairs_in_bins(window: int | None) -> None:
    lengths = [1, 63, 64, 65, 200, 333]
    count = np.zeros(400)
    for length in lengths:
        for query in range(length):
            count[: min(query + 1, window or length)] += 1
    found = pairs_in_bins(EDGES, np.array(lengths), keys_of(lengths, window))
    expected = np.add.reduceat(count, EDGES[EDGES < 400])
    np.testing.assert_array_equal(found[: len(expected)], expected)
    assert not found[len(expected) :].any()


@pytest.mark.parametrize("window", [None, 1, 50, 100, 128, 1000])
def test_summed_log_totals(window: int | None) -> None:
    lengths = [1, 64, 65, 65, 333, 1500]
    rng = np.random.default_rng(0)
    weights = rng.uniform(0, 1, (3, len(EDGES) - 1)) * (rng.uniform(size=(3, len(EDGES) - 1)) < 0.7)
    weights[:, 0] = 0.5  # every query sees itself
    base = np.array([0.0, 0.1, 2.0])
    total = base[:, None] + np.repeat(weights, np.diff(EDGES), axis=1)[:, : max(lengths)].cumsum(1)
    expected = np.zeros(3)
    for length in lengths:
        keys = np.minimum(np.arange(1, length + 1), window or length)
        expected += np.log(total[:, keys - 1]).sum(1)
    found = summed_log_totals(weights, EDGES, np.array(lengths, float), keys_of(lengths, window), base)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
