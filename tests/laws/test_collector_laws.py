"""Laws that every registered collector keeps: a new file is tested the day it arrives."""

from __future__ import annotations

import copy
import gc
import importlib
import weakref

import datasets
import numpy as np
import pytest
import torch
import xarray as xr

import attnscope
from attnscope.collectors import collectors
from attnscope.collectors._base import AttentionSeen, Collector, ResidualSeen, Seen
from attnscope.core import statistics
from attnscope.core.batch import Batch
from attnscope.core.errors import AttnscopeError
from attnscope.core.names import DIMS
from attnscope.engine import folds
from attnscope.engine.collect import collect, run_batch
from attnscope_kernels import Screen

SCOPE = attnscope.load(backend="toy")
LENGTHS = [25, 41, 33, 41]


def prompts() -> datasets.Dataset:
    """Prompts of several lengths with every column that a collector may ask for."""
    rng = np.random.default_rng(0)
    period = 8
    rows = []
    for length in LENGTHS:
        copy_ = rng.choice(np.arange(1, SCOPE.info.vocab_size), period, replace=False).tolist()
        ids = ([0] + copy_ * 6)[:length]
        rows.append(
            {
                "input_ids": ids,
                "period": period,
                "prefix": 1,
                "copies": 3,
                "query_positions": [length - 3, length - 1],
                "source_positions": [4, 7],
                "gold_span": [2, 5],
                "question_positions": [7, 8],
            }
        )
    return datasets.Dataset.from_list(rows)


PROMPTS = prompts()


def get(name: str) -> Collector:
    """The collector with parameters that these short prompts can satisfy."""
    small = {"sink_rate": {"lengths": (16, 32)}, "received_max": {"min_queries": 4}, "sink_mass": {"min_queries": 4}}
    return collectors.get(name)(**small.get(name, {}))


def batch(indices: list[int], pad: str = "right", extra: int = 0) -> Batch:
    rows = PROMPTS[indices]
    longest = max(map(len, rows["input_ids"])) + extra
    ids, valid = torch.zeros(len(indices), longest, dtype=torch.long), torch.zeros(len(indices), longest).bool()
    for i, row in enumerate(rows["input_ids"]):
        where = slice(0, len(row)) if pad == "right" else slice(longest - len(row), longest)
        ids[i, where], valid[i, where] = torch.tensor(row), True
    columns = {key: value for key, value in rows.items() if key != "input_ids"}
    return Batch(ids, valid, tuple(indices), len(PROMPTS), columns)


def folded(collector: Collector, batches: list[Batch]) -> dict:
    states = {collector.name: collector.init(SCOPE.info, len(PROMPTS))}
    for one in batches:
        run_batch(SCOPE, one, [collector], states)
    return states[collector.name]


def same(a: xr.Dataset, b: xr.Dataset, tolerance: float = 1e-5) -> None:
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        np.testing.assert_allclose(a[name].values, b[name].values, atol=tolerance, rtol=1e-4, err_msg=str(name))


@pytest.fixture(params=collectors.names())
def collector(request: pytest.FixtureRequest) -> Collector:
    return get(request.param)


def test_merge_of_folds_equals_fold_of_all(collector: Collector) -> None:
    whole = collector.finalize(folded(collector, [batch([0, 1]), batch([2, 3])]), SCOPE.info)
    parts = collector.merge(folded(collector, [batch([0, 1])]), folded(collector, [batch([2, 3])]))
    same(whole, collector.finalize(parts, SCOPE.info), 1e-12)


def test_order_of_batches_changes_nothing(collector: Collector) -> None:
    forward = folded(collector, [batch([0]), batch([1]), batch([2]), batch([3])])
    backward = folded(collector, [batch([3]), batch([2]), batch([1]), batch([0])])
    same(collector.finalize(forward, SCOPE.info), collector.finalize(backward, SCOPE.info), 1e-12)


@pytest.mark.parametrize(("pad", "extra"), [("left", 0), ("right", 9), ("left", 9)])
def test_padding_changes_nothing(collector: Collector, pad: str, extra: int) -> None:
    alone = folded(collector, [batch([i]) for i in range(4)])
    padded = folded(collector, [batch([0, 1, 2, 3], pad, extra)])
    same(collector.finalize(alone, SCOPE.info), collector.finalize(padded, SCOPE.info))


def test_declares_dims_units_and_source(collector: Collector) -> None:
    result = collector.finalize(folded(collector, [batch([0, 1, 2, 3])]), SCOPE.info)
    statistics.check(result)
    assert set(result.data_vars) == {variable.name for variable in collector.variables}
    for variable in collector.variables:
        assert result[variable.name].dims == variable.dims
        assert set(variable.dims) <= set(DIMS)
        assert result[variable.name].attrs["units"] == variable.units
        assert np.isfinite(result[variable.name].values).any(), "nothing was measured"


def test_finalize_leaves_the_state_alone(collector: Collector) -> None:
    state = folded(collector, [batch([0, 1, 2, 3])])
    before = copy.deepcopy(state)
    collector.finalize(state, SCOPE.info)
    for key, array in state.items():
        np.testing.assert_array_equal(array, before[key])


def test_an_unmeasured_state_is_missing_and_never_zero(collector: Collector) -> None:
    result = collector.finalize(collector.init(SCOPE.info, 2), SCOPE.info)
    for name, array in result.data_vars.items():
        if name != "sink_rate_prompts":  # a count, which is 0
            assert np.isnan(array.values).all(), name


def test_name_is_the_file_name() -> None:
    for name in collectors.names():
        assert collectors.get(name).name == name


def test_all_collectors_together_equal_each_alone() -> None:
    chosen = [get(name) for name in collectors.names()]
    together = collect(SCOPE, PROMPTS, chosen, batch_tokens=90)
    for one in chosen:
        alone = collect(SCOPE, PROMPTS, [one])
        same(together[list(alone.data_vars)], alone)


def test_little_is_moved_from_the_device_at_any_length(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fold moves to the CPU: one transfer a layer or site, and nothing that grows with T."""
    moved: list[int] = []

    def counting(tensors: tuple[torch.Tensor, ...], pinned: folds.Pinned) -> folds.Transfer:
        moved.append(sum(tensor.numel() for tensor in tensors))
        return transfer(tensors, pinned)

    transfer = folds.Transfer
    monkeypatch.setattr(folds, "Transfer", counting)
    length, period = 1200, 8
    ids = torch.arange(length)[None] % period + 1
    columns = {"period": [period], "prefix": [0], "copies": [2]}
    columns |= {"query_positions": [[9]], "source_positions": [[3]], "gold_span": [[1, 4]], "question_positions": [[9]]}
    long = Batch(ids, torch.ones_like(ids, dtype=torch.bool), (0,), 1, columns)
    run_batch(SCOPE, long, [collector], {collector.name: collector.init(SCOPE.info, 1)})
    visits = SCOPE.info.n_layers * (1 if collector.sees == "attention" else 2)
    assert 1 <= len(moved) <= visits
    assert max(moved) < SCOPE.info.n_heads * 256


@pytest.mark.parametrize("name", collectors.names())
def test_folds_may_end_when_the_forward_is_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the second half of a fold runs then, and by that time what it saw must be gone."""
    whole = collect(SCOPE, PROMPTS, [get(name)])
    seen: list[weakref.ref[torch.Tensor]] = []

    def add(self: folds.Folds, what: Seen) -> None:
        seen.append(weakref.ref(what.stream if isinstance(what, ResidualSeen) else what.call.q))
        for collector in self.attention if isinstance(what, AttentionSeen) else self.residual:
            fold = collector.fold(self.states[collector.name], what)
            tensors = next(fold, None)
            if tensors is not None:
                held = [key for key, value in fold.gi_frame.f_locals.items() if isinstance(value, torch.Tensor | Seen)]
                assert not held
                self._moving.append((collector.name, fold, folds.Transfer(tensors)))

    def finish(self: folds.Folds) -> None:
        gc.collect()
        assert not any(ref() is not None for ref in seen)
        kept(self)

    kept = folds.Folds.finish
    monkeypatch.setattr(folds.Folds, "add", add)
    monkeypatch.setattr(folds.Folds, "finish", finish)
    xr.testing.assert_identical(collect(SCOPE, PROMPTS, [get(name)]), whole)


WHOLE = ("positional_share", "passage_mass")
"""Collectors that a screen cannot serve."""


@pytest.mark.parametrize("name", [name for name in collectors.names() if name not in WHOLE])
def test_a_screen_gives_sinks_exactly_and_the_rest_nearly(name: str) -> None:
    """Every key above the threshold is exact; with a stride of one, all is."""
    exact = collect(SCOPE, PROMPTS, [get(name)])
    screened = collect(SCOPE, PROMPTS, [get(name)], screen=Screen(threshold=0.3, delta=0.5, stride=1))
    xr.testing.assert_allclose(screened, exact, rtol=1e-5, atol=1e-6)


def test_far_distances_are_missing_under_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttnscopeError, match="positional_share: found distances up to 64"):
        collect(SCOPE, PROMPTS, ["positional_share"], screen=Screen())
    whole = collect(SCOPE, PROMPTS, ["mass_by_distance"]).mass_by_distance
    monkeypatch.setattr(importlib.import_module("attnscope.engine.collect"), "NEAR", 8)
    near = collect(SCOPE, PROMPTS, ["mass_by_distance"], screen=Screen()).mass_by_distance
    assert near.distance_bin.values.tolist() == [0, 1, 2, 4, 8]
    assert near.sel(distance_bin=8).isnull().all()
    xr.testing.assert_allclose(near[..., :-1], whole.sel(distance_bin=[0, 1, 2, 4]))
