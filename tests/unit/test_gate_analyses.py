"""Gates as arrays: closed forms against sampling, exact budgets, one value a KV head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attnscope.analyses import hardkuma
from attnscope.analyses.kv_choice import full_under_budget, reduce_to_kv
from attnscope.core.errors import StatisticsError
from attnscope.engine.gates.kuma import kept, sample, uniform

SHAPES = [(1.0, 1.0), (0.3, 2.0), (2.5, 0.6), (0.1, 0.1), (4.0, 3.0)]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_closed_forms_are_those_of_sampling(a: float, b: float) -> None:
    u = torch.rand(400_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = torch.ones_like(u)
    z = sample(a * one, b * one, u).numpy()
    s = ((1 - (1 - u) ** (1 / b)) ** (1 / a)).numpy()
    tolerance = 4 * 0.5 / math.sqrt(len(u))
    assert hardkuma.zero_probability(a, b) == pytest.approx((z == 0).mean(), abs=tolerance)
    assert hardkuma.one_probability(a, b) == pytest.approx((z == 1).mean(), abs=tolerance)
    assert hardkuma.mean(a, b) == pytest.approx(z.mean(), abs=tolerance)
    assert hardkuma.class_statistic(a, b) == pytest.approx(s.mean(), abs=tolerance)
    assert float(kept(torch.tensor(a), torch.tensor(b))) == pytest.approx(1 - hardkuma.zero_probability(a, b), abs=1e-6)


def test_the_class_statistic_is_not_the_mean_of_the_gate() -> None:
    assert hardkuma.class_statistic(0.3, 2.0) - hardkuma.mean(0.3, 2.0) > 0.02


def test_draws_are_differentiable_and_the_same_every_time() -> None:
    a, b = (torch.full((3, 2), 1.3, dtype=torch.float64, requires_grad=True) for _ in "ab")
    u = torch.full((3, 2), 0.4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, y: sample(x, y, u), (a, b))
    assert torch.autograd.gradcheck(kept, (a, b))
    assert torch.equal(uniform((3, 2), 5, 7), uniform((3, 2), 5, 7))
    assert not torch.equal(uniform((3, 2), 5, 7), uniform((3, 2), 5, 8))
    many = uniform((1000, 10), 0, 0)
    assert float(many.min()) > 0.001
    assert float(many.max()) < 0.999


def test_parameters_have_to_be_positive() -> None:
    for function in (hardkuma.zero_probability, hardkuma.mean, hardkuma.class_statistic):
        with pytest.raises(StatisticsError, match="not positive"):
            function([1.0, 0.0], [1.0, 1.0])


@pytest.mark.parametrize("budget", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.99, 1.0])
def test_the_budget_is_exact_whatever_the_ties(budget: float) -> None:
    rng = np.random.default_rng(0)
    gates = rng.integers(0, 3, (7, 5)) / 2
    chosen = full_under_budget([gates], budget)
    assert chosen.sum() == round(budget * 35)
    if 0 < chosen.sum() < 35:
        assert gates[chosen].min() >= gates[~chosen].max()
    flat = gates.ravel()
    edge = flat[chosen.ravel()].min() if chosen.any() else np.inf
    tied = np.flatnonzero(flat == edge)
    taken = chosen.ravel()[tied]
    assert not (np.diff(taken.astype(int)) > 0).any(), "of equal gates the earlier ones go first"


def test_reduction_to_kv_heads() -> None:
    scores = np.arange(8.0).reshape(2, 4)
    np.testing.assert_array_equal(reduce_to_kv(scores, 2), [[1, 3], [5, 7]])
    np.testing.assert_array_equal(reduce_to_kv(scores, 2, "mean"), [[0.5, 2.5], [4.5, 6.5]])
    assert np.isnan(reduce_to_kv(np.array([[np.nan, 1.0]]), 1)).all()
    with pytest.raises(StatisticsError, match="'sum'"):
        reduce_to_kv(np.zeros((2, 6)), 3, "sum")  # type: ignore[arg-type]
    with pytest.raises(StatisticsError, match="multiple of 4"):
        reduce_to_kv(np.zeros((2, 6)), 4)
