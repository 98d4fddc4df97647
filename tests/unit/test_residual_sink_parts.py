"""Parts of residual sinks: rounding to four bits, norms measured, interventions on one norm, tables, massive ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from attnscope.analyses.residual_sinks import rescaling_bound, sink_dimensions
from attnscope.core.batch import Batch
from attnscope.core.errors import StatisticsError, TaskError
from attnscope.edits._tokens import Tokens
from attnscope.edits.norm_dimensions import Mode, NormDimensions
from attnscope.engine._massive import Massive
from attnscope.engine.norm_shares import sample
from attnscope.engine.norms import measure
from attnscope.engine.quantise import round_to_nearest
from attnscope.engine.residual_sinks import draw_others

WIDTH = 24


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_numbers_on_the_grid_are_exact_and_others_are_half_a_step_off_at_most() -> None:
    for seed in range(50):
        chooser = torch.Generator().manual_seed(seed)
        width = int(torch.randint(1, 400, (), generator=chooser))
        steps = torch.randint(-7, 8, (3, width), generator=chooser).float()
        steps[:, ::128] = 7  # every group reaches its end
        scale = 2.0 ** torch.randint(-9, 9, (), generator=chooser)
        assert torch.equal(round_to_nearest(steps * scale), steps * scale)
        x = normal(3, width, seed=seed)
        rounded = round_to_nearest(x)
        for start in range(0, width, 128):
            part = x[:, start : start + 128]
            step = part.abs().amax(1, keepdim=True) / 7
            error = (rounded[:, start : start + 128] - part).abs()
            assert (error <= step / 2 * (1 + 1e-5)).all()
            levels = (rounded[:, start : start + 128] / step).round().unique()
            assert levels.abs().max() == 7


def test_a_group_does_not_feel_its_neighbour() -> None:
    x = normal(1, 256)
    alone = round_to_nearest(x)[:, :128]
    x[:, 200] = 1e6
    assert torch.equal(round_to_nearest(x)[:, :128], alone)
    assert not round_to_nearest(torch.zeros(2, 5)).any()
    with pytest.raises(TaskError, match="quantisation group: found 0"):
        round_to_nearest(x, 0)


def random_norm(kind: type[nn.Module], seed: int) -> nn.Module:
    norm = kind(WIDTH)
    with torch.no_grad():
        for i, parameter in enumerate(norm.parameters()):
            parameter.copy_(normal(WIDTH, seed=seed + i))
    return norm


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma2RMSNorm, nn.LayerNorm])
def test_a_norm_is_measured_by_what_it_does(kind: type[nn.Module]) -> None:
    norm = random_norm(kind, 3)
    weight, bias, centred = measure(norm, WIDTH)
    assert centred == (kind is nn.LayerNorm)
    stored = norm.weight.detach().double()
    torch.testing.assert_close(weight, stored + (kind is Gemma2RMSNorm), rtol=1e-4, atol=1e-5)
    expected = norm.bias.detach().double() if centred else torch.zeros(WIDTH).double()
    torch.testing.assert_close(bias, expected, rtol=1e-4, atol=1e-5)


def applied(norm: nn.Module, mode: Mode, x: Tensor, dimensions: tuple[int, ...], **options: object) -> Tensor:
    _, bias, centred = measure(norm, WIDTH)
    edit = NormDimensions(dimensions, mode, centred=centred, biases={"mlp 0": bias.float()}, **options)  # type: ignore[arg-type]
    ends = {site.rpartition("_")[2] for site in edit.sites}
    with torch.no_grad():
        read = edit.stream(0, "mlp_norm_input", x, None) if "input" in ends else x
        y = norm(read)
        return edit.stream(0, "mlp_norm_output", y, None) if "output" in ends else y


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma2RMSNorm, nn.LayerNorm])
@pytest.mark.parametrize("seed", range(8))
def test_interventions_by_their_definitions(kind: type[nn.Module], seed: int) -> None:
    norm, x = random_norm(kind, seed), normal(2, 3, WIDTH, seed=seed)
    x[..., 5] = 30 + normal(2, 3, seed=seed + 1)
    chosen, rest = (5, 9), [i for i in range(WIDTH) if i not in (5, 9)]
    zeroed, before = x.clone(), x.clone()
    zeroed[..., list(chosen)] = 0
    with torch.no_grad():
        plain, without = norm(x), norm(zeroed)
    torch.testing.assert_close(applied(norm, "zero", x, chosen), without)
    direct = applied(norm, "direct_zero", x, chosen)
    assert not direct[..., list(chosen)].any()
    assert torch.equal(direct[..., rest], plain[..., rest])
    ratio = applied(norm, "denom_zero", x, chosen)
    assert torch.equal(ratio[..., list(chosen)], plain[..., list(chosen)])
    if kind is not nn.LayerNorm:
        torch.testing.assert_close(ratio[..., rest], without[..., rest], rtol=1e-4, atol=1e-5)
    else:
        spread = x.std(-1, correction=0, keepdim=True) / zeroed.std(-1, correction=0, keepdim=True)
        expected = (plain - norm.bias.detach()) * spread + norm.bias.detach()
        torch.testing.assert_close(ratio[..., rest], expected[..., rest], rtol=1e-3, atol=1e-4)
    for mode, numbers in (("mean", (29.0, 0.5)), ("clamp", (0.25, 0.25))):
        expected = x.clone()
        if mode == "mean":
            expected[..., list(chosen)] = torch.tensor(numbers)
        else:
            expected[..., list(chosen)] = x[..., list(chosen)].clamp(-0.25, 0.25)
        with torch.no_grad():
            wanted = norm(expected)
        torch.testing.assert_close(applied(norm, mode, x, chosen, values={"mlp 0": numbers}), wanted)
    assert torch.equal(x, before)


def test_the_first_token_is_spared() -> None:
    x = normal(2, 4, WIDTH)
    valid = torch.tensor([[False, True, True, True], [True, True, True, False]])
    batch = Batch(torch.zeros(2, 4, dtype=torch.long), valid, (0, 1), 2)
    changed = NormDimensions((3,), "zero").stream(0, "mlp_norm_input", x, Tokens.of(batch))
    same = (changed == x).all(-1)
    assert torch.equal(same, torch.tensor([[False, True, False, False], [True, False, False, False]]))


def table(size: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"norm_read_mean_abs": (("read", "dimension"), size)})


def test_dimensions_need_the_ratio_in_enough_reads() -> None:
    size = np.ones((4, 9))
    size[:2, 3], size[:, 6], size[0, 1] = 5.0, 8.0, 99.0
    assert sink_dimensions(table(size)) == (6, 3)
    assert sink_dimensions(table(size), least_reads=0.75) == (6,)
    assert sink_dimensions(table(size), least_ratio=8.5, least_reads=0.25) == (1,)
    assert sink_dimensions(table(size), least_ratio=100, least_reads=0) == ()
    with pytest.raises(StatisticsError, match="norm_read_mean_abs"):
        sink_dimensions(xr.Dataset())


def test_the_bound_holds_for_random_vectors() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        chosen = rng.choice(WIDTH, int(rng.integers(1, 5)), replace=False)
        weight, h = rng.standard_normal(WIDTH), rng.standard_normal((7, WIDTH))
        h[:, chosen] *= rng.uniform(0, 100)
        weight[chosen] *= rng.uniform(0, 1)
        y = weight * h / np.sqrt((h**2).mean(1, keepdims=True))
        rms, largest = np.sqrt((y**2).mean(1)), np.abs(weight).max()
        r = np.linalg.norm(h[:, chosen], axis=1) / np.linalg.norm(h, axis=1)
        epsilon = np.abs(weight[chosen]).max() / largest
        assert all(one <= rescaling_bound(largest, part, epsilon) + 1e-9 for one, part in zip(rms, r, strict=True))
        assert rms.mean() <= rescaling_bound(largest, float(r.mean()), epsilon) + 1e-9


def test_random_dimensions_are_others_and_as_many() -> None:
    drawn = draw_others(20, (3, 4, 5), 40, seed=1)
    assert all(len(set(one)) == 3 and not set(one) & {3, 4, 5} for one in drawn)
    assert len(set(drawn)) > 10
    assert draw_others(5, (0, 1, 2), 4, seed=0) == []


def test_massive_activations_by_definition() -> None:
    x = normal(2, 6, 50)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[0, :2] = False
    x[0, 0, 3] = 1e6  # padding
    x[0, 2, 7], x[1, 5, 9], x[1, 1, 1] = 4000.0, -3000.0, 90.0
    batch = Batch(torch.zeros(2, 6, dtype=torch.long), valid, (4, 2), 5)
    paper, relative = Massive(100.0, 1000.0), Massive(0.0, 100.0)
    for one in (paper, relative):
        one.see(batch, 3, x)
    found = [(m.prompt, m.position, m.dimension, m.value) for m in paper.largest()]
    assert found == [(4, 0, 7, 4000.0), (2, 5, 9, -3000.0)]
    assert paper.largest()[0].ratio == pytest.approx(4000 / x[0, 2:].abs().median().item())
    assert {(m.position, m.dimension) for m in relative.largest()} == {(0, 7), (5, 9), (1, 1)}
    x[:] = 1.0
    x[..., :40] = 1e4
    full = Massive(100.0, 0.5)
    full.see(batch, 0, x)
    assert len(full.largest()) == 200


def test_the_sample_is_even_and_leaves_first_tokens_out() -> None:
    lengths = [1, 300, 40, 700]
    chosen = sample(lengths, 100)
    assert len(chosen) == 100
    assert all(1 <= at < lengths[prompt] for prompt, at in chosen)
    assert sum(prompt == 3 for prompt, _ in chosen) in range(65, 71)
    assert sample([3, 1], 100) == {(0, 1), (0, 2)}
