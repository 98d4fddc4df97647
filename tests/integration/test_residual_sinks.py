"""Residual sinks: planted ones come back, the trained model's act, and every architecture runs or says why not."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from test_architectures import DECODERS

import attnscope
from attnscope.core.batch import Batch
from attnscope.core.errors import UnsupportedModelError
from attnscope.core.report import Missing
from attnscope.core.sink_report import Estimate, ResidualSinks
from attnscope.edits.norm_dimensions import Mode
from attnscope.engine import loss as loss_module
from attnscope.engine import norm_stream
from attnscope.engine.batches import make_batch
from attnscope.engine.edited import edited
from attnscope.engine.loss import next_token_loss
from attnscope.engine.norm_reads import norm_reads
from attnscope.engine.norm_shares import norm_shares
from attnscope.engine.norms import find_norms
from attnscope.engine.quantise import w4a4
from attnscope.engine.residual_sinks import edit_of, residual_sinks
from attnscope.models.hf import HFScope
from attnscope.tasks.text import Text
from attnscope.testbed.planted import PlantedSpec, plant, text_prompts

SINK = 43
SMALL = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 1}


@cache
def pocket() -> Any:
    return attnscope.load(device="cpu")


@cache
def pocket_prompts() -> datasets.Dataset:
    return Text(n=4, length=96).build(pocket().tokenizer)


@cache
def pocket_sinks() -> ResidualSinks:
    found = residual_sinks(pocket(), pocket_prompts(), draws=2)
    assert isinstance(found, ResidualSinks)
    return found


def planted(seed: int, sink: bool = True) -> tuple[HFScope, datasets.Dataset, int, float]:
    rng = np.random.default_rng(seed)
    dimension, magnitude = int(rng.integers(192)), float(rng.uniform(8, 200) * rng.choice([-1, 1]))
    spec = PlantedSpec(**SMALL, seed=seed, residual_sink=(dimension, magnitude) if sink else None)
    return HFScope(*plant(spec)), text_prompts(spec, 2, 48, seed), dimension, magnitude


@pytest.mark.parametrize("seed", range(25))
def test_a_planted_dimension_is_found_and_nothing_else(seed: int) -> None:
    scope, prompts, dimension, magnitude = planted(seed)
    found = residual_sinks(scope, prompts, interventions=False)
    assert isinstance(found, ResidualSinks)
    assert [one.dimension for one in found.dimensions] == [dimension]
    sink = found.dimensions[0]
    assert sink.mean_abs == pytest.approx(abs(magnitude), rel=1e-4)
    assert (sink.reads, sink.writer, sink.weight) == (5, "embedding", pytest.approx(1e-3))
    for read in found.reads:
        assert (read.argmax, read.argmax_hit) == (dimension, 1.0)
        assert read.bound is not None
        assert read.rms <= read.bound * (1 + 1e-5)
        assert read.r == pytest.approx(abs(magnitude) / math.hypot(magnitude, 8), rel=0.05)
        assert read.direct is not None
        assert read.direct < 0.05 < read.denominator - 1
    assert found.reads[0].denominator == pytest.approx(math.hypot(magnitude, 8) / 8, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_where_nothing_was_planted(seed: int) -> None:
    scope, prompts, _, _ = planted(seed, sink=False)
    found = residual_sinks(scope, prompts, draws=1)
    assert isinstance(found, ResidualSinks)
    assert (found.dimensions, found.interventions, found.quantisation) == ((), (), None)
    assert len(found.reads) == 5
    for read in found.reads:
        assert (read.r, read.denominator, read.direct, read.weight) == (0, pytest.approx(1), 0, None)
        assert 0 < read.rms <= (read.bound or 0) + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_interventions_do_what_was_planted(seed: int) -> None:
    scope, prompts, dimension, magnitude = planted(seed)
    norms = find_norms(scope)
    reads = norm_reads(scope, prompts, norms=norms)
    batch = make_batch(prompts, [0, 1], "cpu")

    def run(mode: Mode | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits, and the first norm's output, of all tokens but BOS."""
        edits = [] if mode is None else [edit_of(mode, (dimension,), reads, norms)]
        seen: list[torch.Tensor] = []
        with torch.no_grad(), edited(scope, edits, batch):
            hook = scope.model.model.layers[0].self_attn.q_proj.register_forward_pre_hook(
                lambda _, args: seen.append(args[0][:, 1:])
            )
            logits = scope.logits(batch)
            hook.remove()
        return logits, seen[0].square().mean(-1).sqrt()

    plain, rms = run(None)
    ids = batch.input_ids[:, 1:]
    x = scope.model.model.embed_tokens(ids).double()
    rest = x.clone()
    rest[..., dimension] = 0
    factor = x.norm(dim=-1) / rest.norm(dim=-1)
    for mode in ("zero", "denom_zero"):
        torch.testing.assert_close((run(mode)[1] / rms).double(), factor, rtol=1e-3, atol=0)
    logits, after = run("direct_zero")
    torch.testing.assert_close(logits, plain, atol=0.05, rtol=1e-3)
    torch.testing.assert_close(after, rms, atol=1e-3, rtol=0)
    logits, after = run("mean")  # the planted dimension has one value on every token
    torch.testing.assert_close(logits, plain, atol=2e-3, rtol=1e-4)
    size = float(reads["norm_read_mean_abs"].median("dimension")[0])
    clamped = torch.cat([rest, torch.full((*ids.shape, 1), min(size, abs(magnitude)))], -1).norm(dim=-1)
    torch.testing.assert_close((run("clamp")[1] / rms).double(), x.norm(dim=-1) / clamped, rtol=1e-3, atol=0)


def test_direct_zero_changes_no_loss_where_the_weight_is_nothing() -> None:
    scope, prompts, dimension, _ = planted(0)
    norms = find_norms(scope)
    reads = norm_reads(scope, prompts, norms=norms)
    before = next_token_loss(scope, prompts)
    after = next_token_loss(scope, prompts, edits=[edit_of("direct_zero", (dimension,), reads, norms)])
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)


def test_statistics_of_the_trained_model_are_the_definitions() -> None:
    """Against hidden states by plain transformers hooks, in float64."""
    scope, prompts = pocket(), pocket_prompts()
    seen: dict[str, list[torch.Tensor]] = {}
    norms = find_norms(scope)
    hooks = [
        norm.module.register_forward_hook(
            lambda _, args, output, name=norm.label: seen.update({name: [args[0].double(), output.double()]})
        )
        for norm in norms
    ]
    with torch.no_grad():
        scope.model(input_ids=torch.tensor(prompts["input_ids"]))
    for hook in hooks:
        hook.remove()
    reads = norm_reads(scope, prompts)
    shares, _ = norm_shares(scope, prompts, [SINK, 250])
    layer = scope.model.model.layers[3].self_attn
    weight = torch.cat([one.weight for one in (layer.q_proj, layer.k_proj, layer.v_proj)]).double()
    for norm in norms:
        x, y = (one[:, 1:].flatten(0, 1) for one in seen[norm.label])
        here, there = reads.sel(read=norm.label), shares.sel(read=norm.label)
        np.testing.assert_allclose(here.norm_read_mean_abs, x.abs().mean(0), rtol=1e-4)
        np.testing.assert_allclose(here.norm_read_mean, x.mean(0), rtol=1e-3, atol=1e-4)
        hits = torch.bincount(x.abs().argmax(1), minlength=x.shape[1])
        assert np.abs(here.norm_read_hits.values - hits.numpy()).sum() <= 2
        rest = x.clone()
        rest[:, [SINK, 250]] = 0
        expected = {
            "norm_sink_share": x[:, [SINK, 250]].norm(dim=1) / x.norm(dim=1),
            "norm_denominator": x.norm(dim=1) / rest.norm(dim=1),
            "norm_output_rms": y.square().mean(1).sqrt(),
        }
        if norm.label == "attention 3":
            part = y[:, [SINK, 250]] @ weight[:, [SINK, 250]].T
            expected["norm_direct_share"] = part.norm(dim=1) / (y @ weight.T).norm(dim=1)
        if norm.label == "final":
            head = scope.model.lm_head.weight.double()
            part = y[:, [SINK, 250]] @ head[:, [SINK, 250]].T
            expected["norm_direct_share"] = part.std(1) / (y @ head.T).std(1)
        for name, values in expected.items():
            np.testing.assert_allclose(float(there[name]), float(values.mean()), rtol=1e-3, err_msg=name)
    assert not any(hook for hook in scope.model.modules() if hook._forward_hooks or hook._forward_pre_hooks)


def test_the_trained_models_residual_sink() -> None:
    found = pocket_sinks()
    assert [one.dimension for one in found.dimensions] == [SINK]
    sink = found.dimensions[0]
    assert 12 < sink.score < 20
    assert (sink.reads, sink.writer) == (16, "mlp 0")
    assert all(read.rms <= (read.bound or 0) for read in found.reads)
    assert found.logits_direct == found.reads[-1].direct
    assert all(read.direct is not None and 0 < read.direct < 1 for read in found.reads)
    effects = {one.intervention: one for one in found.interventions}
    assert list(effects) == ["mean", "zero", "clamp", "direct_zero", "denom_zero"]
    values = {}
    for name, one in effects.items():
        assert isinstance(one.loss_change, Estimate)
        assert len(one.control_changes) == 2
        assert one.loss_change.interval is not None
        assert one.loss_change.n == 4
        values[name] = one.loss_change.value
    assert all(map(math.isfinite, values.values()))
    assert max(map(abs, effects["zero"].control_changes)) < values["zero"] / 20
    assert values["mean"] < values["zero"]
    rounded = found.quantisation
    assert rounded is not None
    assert rounded.loss < rounded.sinks_apart < rounded.quantised
    assert ResidualSinks.model_validate_json(found.model_dump_json()) == found


def make_left(prompts: Any, indices: Sequence[int], device: Any) -> Batch:
    """As `make_batch`, padded on the left, with one more empty column."""
    batch = make_batch(prompts, indices, device)
    ids, valid = batch.input_ids.roll(1, 1), batch.valid.roll(1, 1)
    ids, valid = torch.zeros(len(ids), ids.shape[1] + 3).long(), torch.zeros(len(ids), ids.shape[1] + 3).bool()
    for row, length in enumerate(batch.lengths.tolist()):
        ids[row, -length:], valid[row, -length:] = batch.input_ids[row, :length], True
    return Batch(ids, valid, batch.prompts, batch.n_prompts, batch.columns)


def test_padding_and_batching_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = pocket()
    rows = pocket_prompts()["input_ids"]
    prompts = datasets.Dataset.from_dict({"input_ids": [rows[0][:50], rows[1][:9], rows[2][:31], rows[3][:1]]})
    options: dict[str, Any] = {"draws": 0}
    alone = residual_sinks(scope, prompts, batch_tokens=1, **options)
    together = residual_sinks(scope, prompts, batch_tokens=4096, **options)
    for module in (norm_stream, loss_module):
        monkeypatch.setattr(module, "make_batch", make_left)
    left = residual_sinks(scope, prompts, batch_tokens=4096, **options)
    for other in (together, left):
        close(alone.model_dump(), other.model_dump())


def close(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            close(a, b, f"{where}[{i}]")
    elif isinstance(one, float):
        # rounding to four bits is a step: where it falls differs with the order of sums
        assert one == pytest.approx(other, rel=5e-3, abs=0.1 if "quantisation" in where else 1e-3), where
    else:
        assert one == other, where


def test_quantisation_with_every_dimension_apart_leaves_readers_exact_and_restores() -> None:
    scope, prompts = pocket(), pocket_prompts()
    batch = make_batch(prompts, [0], "cpu")
    layer = scope.model.model.layers[2]
    seen: list[torch.Tensor] = []

    def read() -> None:
        x = layer.input_layernorm(torch.randn(1, 5, 320, generator=torch.Generator().manual_seed(0)))
        seen.append(layer.self_attn.q_proj(x))

    with torch.no_grad():
        before, weights = scope.logits(batch), copy.deepcopy(scope.model.state_dict())
        read()
        with w4a4(scope, tuple(range(320))):
            read()
        torch.testing.assert_close(seen[1], seen[0], rtol=1e-5, atol=1e-5)
        with w4a4(scope):
            read()
            assert not torch.allclose(scope.logits(batch), before, atol=1e-2)
        assert (seen[2] - seen[0]).abs().max() > 1e-2
        with pytest.raises(RuntimeError, match="stop"), w4a4(scope):
            raise RuntimeError("stop")
        assert torch.equal(scope.logits(batch), before)
    assert all(torch.equal(one, weights[name]) for name, one in scope.model.state_dict().items())


def test_hidden_states_that_overflow_are_said_in_words() -> None:
    scope = attnscope.load(device="cpu", dtype="float16")
    with torch.no_grad():
        scope.model.model.layers[2].mlp.down_proj.weight.mul_(3e4)
    with pytest.raises(UnsupportedModelError, match=r"block output of layer 2.*overflow fp16.*bfloat16"):
        residual_sinks(scope, pocket_prompts(), interventions=False)


TINY = datasets.Dataset.from_dict({"input_ids": [list(range(3, 20)), list(range(30, 39))]})


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "cohere2", "gpt_neox", "qwen3_moe", "phi3"])
def test_architectures_run_through(name: str) -> None:
    scope = HFScope(DECODERS[name]())
    batch = make_batch(TINY, [0, 1], "cpu")
    with torch.no_grad():
        before = scope.logits(batch)
    found = residual_sinks(scope, TINY, draws=1, least_ratio=1.3, least_reads=0.3)
    assert isinstance(found, ResidualSinks)
    assert found.dimensions
    kinds = [read.read for read in found.reads]
    per_block = 1 if name == "cohere2" else 2
    assert kinds == [*(["attention", "mlp"][:per_block] * scope.info.n_layers), "final"]
    means = name in ("gpt2", "cohere2", "gpt_neox")
    assert all(one.writer is not None for one in found.dimensions)
    assert all((read.bound is None) == means for read in found.reads)
    assert all(read.rms <= read.bound * (1 + 1e-5) for read in found.reads if read.bound is not None)
    assert len(found.interventions) == 5
    assert found.quantisation is not None
    assert found.quantisation.quantised != found.quantisation.loss
    assert found.logits_direct is not None
    with torch.no_grad():
        assert torch.equal(scope.logits(batch), before)


REFUSED = {"opt": "attention and MLP whose outputs are added", "olmo2": "a norm that reads the residual stream"}


@pytest.mark.parametrize("name", REFUSED)
def test_models_without_such_norms_are_missing_with_words(name: str) -> None:
    found = residual_sinks(HFScope(DECODERS[name]()), TINY)
    assert isinstance(found, Missing)
    assert REFUSED[name] in found.reason


def test_a_model_without_modules_is_missing_with_words() -> None:
    found = residual_sinks(attnscope.load(backend="toy"), TINY)
    assert isinstance(found, Missing)
    assert "without norms" in found.reason
