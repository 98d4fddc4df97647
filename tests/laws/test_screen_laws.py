"""Laws of screens: the sample is the same everywhere, exact keys are exact, bounds hold as often as they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attnscope_kernels import Screen, Want, attend
from attnscope_kernels.impl import tiled
from attnscope_kernels.impl._sample import draw
from attnscope_kernels.impl._tiled_screen import Streaming
from attnscope_kernels.testing import FEATURES, compare, random_call


@pytest.mark.parametrize("feature", [*FEATURES])
def test_a_screen_samples_alike_and_is_exact_where_it_says_so(feature: str) -> None:
    """The sample is the same for all, exact keys are exact, the bound holds, the rest is an estimate."""
    call = random_call(queries=310, heads=2, kv_heads=1, dtype=torch.float64, **FEATURES[feature])
    screen = Screen(threshold=0.3, delta=0.4, stride=12)
    first = {"first": torch.zeros(2, 310, dtype=torch.long)}
    want = Want(
        received=True,
        entropy=True,
        max_prob=True,
        mean_distance=True,
        mass_at=first,
        mass_by_distance=(0, 1, 9),
        screen=screen,
    )
    found, truth = attend(call, want, "tiled"), attend(call, want, "reference")
    assert (found.kernels[-1:] == ("screen",)) == (call.window is None or call.window > 30)
    assert max(compare(found, truth).values()) < 1e-9
    exact = attend(call, Want(received=True, entropy=True), "reference")
    everywhere = found.received_exact[:, None].expand_as(found.received)
    torch.testing.assert_close(found.received[everywhere], exact.received[everywhere])
    torch.testing.assert_close(found.received_bound[everywhere], exact.received[everywhere])
    assert bool(found.received_exact.any()) or not call.causal
    kept = ~found.entropy.isnan()
    torch.testing.assert_close(found.entropy[kept], exact.entropy[kept])
    assert int(kept.sum()) >= call.valid_queries.sum() // 12


def test_a_sample_estimates_without_bias() -> None:
    call = random_call(batch=1, queries=600, heads=2, kv_heads=1, dtype=torch.float64)
    exact = attend(call, Want(lse=True, received=True), "reference")
    estimates = []
    for seed in range(100):
        sample = draw(call, Screen(threshold=0.9, delta=0.5, stride=12, seed=seed))
        assert len(sample.rows) == 50
        assert [level.size for level in sample.levels] == [8, 4, 2, 1]
        assert sample.levels[0].weights.sum() == 600
        whole = Streaming(tiled.attend)
        estimates.append(torch.cat([whole.received(call, exact.lse, level) for level in sample.levels], dim=2))
    found = torch.stack(estimates)
    error = (found.mean(0) - exact.received) / (found.std(0) / 10).clamp_min(1e-12)
    assert bool((found.std(0) > 0).any())
    assert error[found.std(0) > 1e-9].square().mean() < 1.5  # about 1 for an estimate without bias


def test_a_screen_misses_as_seldom_as_it_says() -> None:
    sinks = torch.zeros(1, 2, 905, dtype=torch.float64)
    sinks[..., ::60] = 4.0
    call = random_call(batch=1, queries=905, heads=2, kv_heads=1, dtype=torch.float64).replace(key_bias=sinks)
    exact = attend(call, Want(received=True), "reference").received
    screen = Screen(threshold=0.05, delta=0.05, stride=12)
    large = exact / torch.arange(905, 0, -1) >= screen.threshold
    missed = exceeded = left_out = 0
    for seed in range(60):
        found = attend(call, Want(output=False, received=True, screen=replace(screen, seed=seed)), "tiled")
        missed += int((large & ~found.received_exact[:, None]).sum())
        exceeded += int((exact > found.received_bound + 1e-9).sum())
        left_out += int((~found.received_exact).sum())
    assert int(large.sum()) > 5
    assert left_out > 0
    assert missed <= 60 * int(large.sum()) * screen.delta
    assert exceeded <= 60 * 1810 * screen.delta


def test_a_screen_of_a_short_prompt_is_exact() -> None:
    """Where no stratum would have eight queries, every row is summed: no query is missing and every key is exact."""
    call = random_call(queries=310, dtype=torch.float64)
    want = Want(received=True, entropy=True, mass_by_distance=(0, 1, 9))
    exact, found = (attend(call, one, "tiled") for one in (want, replace(want, screen=Screen())))
    assert not any(compare(replace(found, received_exact=None, received_bound=None), exact).values())
    assert found.received_exact is not None
    assert bool(found.received_exact.all())
    assert found.received_bound is found.received
