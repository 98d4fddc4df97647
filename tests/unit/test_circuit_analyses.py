"""Analyses of circuits, each against a hand-made example or a brute-force computation."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest

from attnscope.analyses.circuits import circuits_at, effects, halves, ranked, unit_mask
from attnscope.analyses.compare import overlap
from attnscope.analyses.dissociation import double_dissociation
from attnscope.analyses.faithfulness import MIB_SIZES, areas, faithfulness, incompleteness, minimality, recovery
from attnscope.analyses.intervals import bootstrap_mean, resampled_means
from attnscope.analyses.paired import false_discovery, paired_change, sign_flip, signed_rank
from attnscope.core.errors import StatisticsError

RNG = np.random.default_rng(0)


def test_effects_are_mean_drops_and_nan_stays_nan():
    baseline = np.array([1.0, 0.9, 0.8, 1.0])
    edited = np.empty((4, 2, 2))
    edited[:, 0, 0] = baseline
    edited[:, 0, 1] = baseline - [0.4, 0.2, 0.6, 0.4]
    edited[:, 1, 0] = np.nan
    edited[:, 1, 1] = [np.nan, 0.9, 0.6, 1.2]
    found = effects(baseline, edited)
    np.testing.assert_allclose(found.mean, [[0.0, 0.4], [np.nan, 0.0]], atol=1e-12)
    assert found.n.tolist() == [[4, 4], [0, 3]]
    for part in (found.low, found.high, found.p, found.q):
        assert np.isnan(part[1, 0])
    low, high = bootstrap_mean(baseline - edited[:, 0, 1])
    assert (found.low[0, 1], found.high[0, 1]) == (low, high)
    assert found.p[0, 1] == 2 / 16
    assert found.p[0, 0] == 1.0


def test_intervals_do_not_depend_on_the_other_units():
    edited = RNG.standard_normal((20, 3))
    whole = effects(np.zeros(20), edited)
    alone = effects(np.zeros(20), edited[:, 1:2])
    assert (whole.low[1], whole.p[1]) == (alone.low[0], alone.p[0])


def test_exact_sign_flips_are_all_patterns():
    gaps = RNG.standard_normal(7) + 0.4
    sums = [abs(np.dot(signs, gaps)) for signs in itertools.product((-1, 1), repeat=7)]
    expected = np.mean([s >= abs(gaps.sum()) - 1e-12 for s in sums])
    assert sign_flip(gaps[:, None])[0] == expected


def test_drawn_sign_flips_are_near_the_exact_ones_and_never_zero():
    n, lost = 20, 14
    gaps = np.repeat([1.0, -1.0], [lost, n - lost])
    exact = 2 * sum(comb(n, k) for k in range(lost, n + 1)) / 2**n
    assert sign_flip(gaps[:, None])[0] == pytest.approx(exact, abs=0.01)
    assert sign_flip(np.ones((40, 1)))[0] == 1 / 10_000


def test_p_values_without_an_effect_are_uniform():
    p = sign_flip(np.random.default_rng(3).standard_normal((30, 800)))
    assert abs((p < 0.1).mean() - 0.1) < 0.04
    assert abs((p < 0.5).mean() - 0.5) < 0.06


def test_a_prompt_without_a_value_takes_no_part_in_the_test():
    gaps = RNG.standard_normal((6, 1)) + 1
    padded = np.vstack([gaps, [[np.nan]]])
    assert sign_flip(padded)[0] == sign_flip(gaps)[0]
    assert signed_rank(padded)[0] == signed_rank(gaps)[0]
    assert np.isnan(sign_flip(np.full((3, 1), np.nan))[0])


def test_signed_ranks_by_hand():
    # ranks 1 to 5, all positive: 2 of 32 sign patterns are as extreme
    assert signed_rank(np.array([[0.1], [0.2], [0.3], [0.4], [0.5]]))[0] == pytest.approx(2 / 32)
    # W = 1 from the smallest alone: sets of ranks with sum 0 or 1, both sides
    assert signed_rank(np.array([[-0.1], [0.2], [0.3], [0.4], [0.5]]))[0] == pytest.approx(4 / 32)
    assert signed_rank(np.zeros((5, 1)))[0] == 1.0


def test_benjamini_and_hochberg_by_hand():
    # sorted: .005 .009 .04 .05 .5 of m=5; p·m/rank = .025 .0225 .0667 .0625 .5, then the least from the right
    p = np.array([[0.04, 0.005, np.nan], [0.5, 0.009, 0.05]])
    expected = np.array([[0.0625, 0.0225, np.nan], [0.5, 0.0225, 0.0625]])
    np.testing.assert_allclose(false_discovery(p), expected)
    assert np.isnan(false_discovery(np.full(3, np.nan))).all()


def test_planted_units_are_found_among_many_and_no_others():
    baseline = np.ones(60)
    edited = 1 - 0.1 * np.random.default_rng(1).standard_normal((60, 8, 8))
    planted = [(1, 2), (5, 5), (6, 0)]
    for unit, size in zip(planted, (0.5, 0.4, 0.3), strict=True):
        edited[:, *unit] -= size
    found = effects(baseline, edited)
    assert {tuple(map(int, u)) for u in np.argwhere(found.q < 0.01)} == set(planted)
    assert ranked(found.mean)[:3] == planted
    assert effects(baseline, edited, test="wilcoxon").q[1, 2] < 1e-6


def test_a_paired_change_is_of_the_same_prompts():
    found = paired_change(np.array([1.0, 1.0, np.nan, 0.0]), np.array([0.0, 1.0, 1.0, 0.0]))
    assert (found.value, found.n) == (pytest.approx(-1 / 3), 3)
    assert found.low <= found.value <= found.high
    assert np.isnan(paired_change(np.ones(1), np.zeros(1)).low)
    with pytest.raises(StatisticsError, match="one shape"):
        paired_change(np.ones(3), np.ones(4))
    with pytest.raises(StatisticsError, match="none"):
        paired_change(np.full(3, np.nan), np.ones(3))


def test_resampled_means_are_means_of_drawn_prompts():
    values = RNG.standard_normal((50, 2))
    means = resampled_means(values, 4000)
    np.testing.assert_allclose(means.mean(0), values.mean(0), atol=0.01)
    np.testing.assert_allclose(means.std(0), values.std(0) / np.sqrt(50), rtol=0.05)


def test_halves_share_no_prompt_and_keep_groups_whole():
    groups = [i // 3 for i in range(30)]
    first, second = halves(30, groups, seed=4)
    assert sorted([*first, *second]) == list(range(30))
    assert not {groups[i] for i in first} & {groups[i] for i in second}
    assert len(first) == 15
    assert halves(30, groups, seed=4)[0].tolist() == first.tolist()
    assert halves(30, groups, seed=5)[0].tolist() != first.tolist()
    with pytest.raises(StatisticsError, match="at least 2"):
        halves(4, "aaaa")
    with pytest.raises(StatisticsError, match="one for each"):
        halves(4, "aab")


def test_selective_ranking_leaves_out_what_both_tasks_need():
    recall = np.array([[0.6, 0.3, 0.0], [0.1, np.nan, 0.2]])
    reasoning = np.array([[0.6, 0.0, 0.0], [0.0, 0.1, 0.3]])
    assert ranked(recall)[0] == (0, 0)
    assert ranked(recall, reasoning) == [(0, 1), (1, 0), (0, 0), (0, 2), (1, 2)]
    nested = circuits_at([1, 3], recall, reasoning)
    assert nested[3][:1] == nested[1]
    for size in (0, 6):
        with pytest.raises(StatisticsError, match="1 to 5"):
            circuits_at([size], recall, reasoning)
    assert unit_mask(nested[1], (2, 3)).sum() == 1


def answers(accuracy: float, n: int = 200, seed: int = 0) -> np.ndarray:
    right = np.zeros(n)
    right[: round(accuracy * n)] = 1
    return np.random.default_rng(seed).permutation(right)


def lose(right: np.ndarray, drop: float) -> np.ndarray:
    left = right.copy()
    left[np.flatnonzero(right)[: round(drop * len(right))]] = 0
    return left


def planted(recall: tuple[float, float], reasoning: tuple[float, float], control: float = 0.01):
    """Drops (on recall, on reasoning) of the recall circuit and of the reasoning circuit."""
    base = answers(0.9), answers(0.8, seed=1)
    sides = [tuple(lose(b, d) for b, d in zip(base, drops, strict=True)) for drops in (recall, reasoning)]
    draws = tuple(np.stack([lose(b, control + 0.005 * i) for i in range(3)]) for b in base)
    return base, *sides, draws, draws


def test_a_planted_double_dissociation_comes_out():
    found = double_dissociation(*planted((0.4, 0.02), (0.01, 0.3)))
    assert found.verdict == "double"
    assert found.first.delta.value == pytest.approx(0.38)
    assert found.second.delta.value == pytest.approx(0.29)
    assert found.first.certain
    assert found.second.certain
    assert 0 < found.first.delta.low < 0.38 < found.first.delta.high
    assert found.second.control[2] == pytest.approx((0.02, 0.02, 0.0))
    assert (found.first.own.n, found.first.delta.n) == (200, 400)


@pytest.mark.parametrize(
    ("recall", "reasoning", "verdict"),
    [
        ((0.4, 0.4), (0.4, 0.4), "none"),
        ((0.4, 0.02), (0.3, 0.3), "first only"),
        ((0.1, 0.0), (0.0, 0.2), "second only"),
        ((0.15, 0.03), (0.03, 0.15), "double"),
        ((0.145, 0.0), (0.0, 0.15), "second only"),
    ],
)
def test_verdicts_at_and_around_the_thresholds(recall, reasoning, verdict):
    assert double_dissociation(*planted(recall, reasoning)).verdict == verdict


def test_thresholds_are_parameters_and_a_drop_that_chance_gives_too_is_not_certain():
    data = planted((0.1, 0.0), (0.0, 0.1))
    assert double_dissociation(*data).verdict == "none"
    assert double_dissociation(*data, least_drop=0.1).verdict == "double"
    base, first, second, *_ = data
    hard = np.stack([lose(base[0], 0.3)]), np.stack([base[1]])
    found = double_dissociation(base, first, second, hard, hard, least_drop=0.1)
    assert found.first.certain is False
    assert double_dissociation(base, first, second).first.certain is None


def test_the_two_tasks_are_resampled_apart():
    n = 400
    base = np.ones(n), np.ones(n)
    same = lose(np.ones(n), 0.5)
    found = double_dissociation(base, (same, same), (same, same)).first.delta
    width = found.high - found.low
    assert found.value == 0
    assert width == pytest.approx(2 * 1.96 * np.sqrt(2 * 0.25 / n), rel=0.1)


def test_dissociations_of_unlike_prompts_or_draws_are_refused():
    base, first, second, draws, _ = planted((0.4, 0.0), (0.0, 0.4))
    with pytest.raises(StatisticsError, match="one shape"):
        double_dissociation(base, (first[0][:-1], first[1]), second)
    with pytest.raises(StatisticsError, match="the same draws"):
        double_dissociation(base, first, second, (draws[0][:1], draws[1]))


def test_faithfulness_is_one_of_the_model_zero_of_nothing_and_may_leave_that_range():
    np.testing.assert_allclose(faithfulness(np.array([3.5, -1.0, 8.0, -5.5]), -1.0, 3.5), [1, 0, 2, -1])
    assert np.isnan(faithfulness(2.0, 1.0, 1.0))


def test_areas_are_trapezoids_over_the_published_sizes():
    f = RNG.uniform(0, 1.5, len(MIB_SIZES))
    cpr = cmd = 0.0
    for a, b, fa, fb in zip(MIB_SIZES, MIB_SIZES[1:], f, f[1:], strict=False):
        cpr += (b - a) * (fa + fb) / 2
        cmd += (b - a) * (abs(1 - fa) + abs(1 - fb)) / 2
    found = areas(MIB_SIZES, f)
    assert (found.cpr, found.cmd) == (pytest.approx(cpr), pytest.approx(cmd))
    assert areas(MIB_SIZES, np.ones(10)).cpr == pytest.approx(0.999)
    assert areas(MIB_SIZES, np.ones(10)).cmd == 0
    assert areas([0.0, 1.0], [0.0, 0.5]).cpr == 0.25


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [
        ([0.1], [1.0], "at least 2"),
        ([0.1, 0.2], [1.0], "one f for each"),
        ([0.2, 0.1], [1.0, 1.0], "ascending"),
        ([0.1, 2.0], [1.0, 1.0], "ascending"),
        ([0.1, 0.2], [1.0, np.nan], "every size"),
    ],
)
def test_areas_of_what_is_no_curve_are_refused(sizes, values, message):
    with pytest.raises(StatisticsError, match=message):
        areas(sizes, values)


def test_completeness_and_minimality_of_an_additive_model():
    """F is the sum of its parts' worth; the circuit {a, b} lacks c, and b does nothing."""
    worth = {"a": 2.0, "b": 0.0, "c": 1.0}
    circuit, subsets = {"a", "b"}, [set(), {"a"}, {"b"}]
    of_circuit = np.array([sum(worth[x] for x in circuit - k) for k in subsets])
    of_model = np.array([sum(worth[x] for x in set(worth) - k) for k in subsets])
    np.testing.assert_allclose(incompleteness(of_circuit, of_model), [1, 1, 1])
    rest = [[set(), {"b"}], [set(), {"a"}]]
    before = np.array([[sum(worth[x] for x in circuit - k) for k in row] for row in rest])
    after = np.array(
        [[sum(worth[x] for x in circuit - k - {v}) for k in row] for v, row in zip("ab", rest, strict=True)]
    )
    np.testing.assert_allclose(minimality(before, after), [2, 0])
    assert np.isnan(minimality(np.full((1, 2), np.nan), np.ones((1, 2)))[0])


def test_recovery_is_percent_of_the_way_from_corrupt_to_clean():
    np.testing.assert_allclose(recovery(3.0, -1.0, np.array([-1.0, 1.0, 3.0, -2.0])), [0, 50, 100, -25])
    assert np.isnan(recovery(1.0, 1.0, 2.0))


def test_overlap_by_chance_against_all_placings():
    first, second = unit_mask([(0, 0), (0, 1), (1, 0)], (2, 3)), unit_mask([(0, 0), (1, 0), (1, 1)], (2, 3))
    found = overlap(first, second)
    placings = [set(c) for c in itertools.combinations(range(6), 3)]
    shared = [len({0, 1, 3} & placing) for placing in placings]
    assert found.shared == 2
    assert found.expected == pytest.approx(np.mean(shared))
    assert found.p_value == pytest.approx(np.mean([s >= 2 for s in shared]))
    assert found.jaccard == 0.5
    rows = [
        len({0, 1} & set(a)) + len({0} & set(b))
        for a in itertools.combinations(range(3), 1)
        for b in itertools.combinations(range(3), 2)
    ]
    assert found.layer_expected == pytest.approx(np.mean(rows))
    assert found.layer_p_value == pytest.approx(np.mean([s >= 2 for s in rows]))


def test_wrong_shapes_and_tests_are_refused():
    with pytest.raises(StatisticsError, match="same prompts"):
        effects(np.ones(3), np.ones((4, 2)))
    with pytest.raises(StatisticsError, match="wilcoxon"):
        effects(np.ones(3), np.ones((3, 2)), test="t")
    with pytest.raises(StatisticsError, match="one shape"):
        ranked(np.ones(3), np.ones(4))
