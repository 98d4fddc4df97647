"""Training gates on the toy model: gradients, resuming, the constraint, and that nothing but the gates changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import attnscope
from attnscope.core.errors import DeviceError, OutputError, TaskError
from attnscope.engine.gates.duo_attention import DuoAttention
from attnscope.engine.gates.hardkuma import HardKuma
from attnscope.engine.gates.statistics import train_gates
from attnscope.engine.gates.targets import Targets
from attnscope.engine.gates.train import prompt_at, rate_at, train
from attnscope.models.toy import Toy
from attnscope_kernels import AttentionCall
from attnscope_kernels.impl.reference import attention_logits

SCOPE = attnscope.load(backend="toy")
RNG = np.random.default_rng(0)
PROMPTS = datasets.Dataset.from_list(
    [{"input_ids": RNG.integers(0, 64, n).tolist(), "query_positions": [n - 3, n - 1]} for n in (30, 24, 33)]
)
WINDOW: dict[str, Any] = {"sink_tokens": 1, "recent_tokens": 4}
METHODS = [DuoAttention(steps=7, **WINDOW), HardKuma(steps=7, share=0.2, **WINDOW)]


def loss(method: DuoAttention | HardKuma, gates: dict[str, torch.Tensor], scope: Toy, prompt: int = 0) -> torch.Tensor:
    targets = Targets(scope, PROMPTS)
    tap = method.tap(scope.info, gates, 3, targets.positions[prompt])
    return targets.loss(prompt, tap) + method.penalty(gates, {})[0]


@pytest.mark.parametrize("per", ["kv_head", "query_head"])
def test_gradients_of_duo_gates_are_those_of_finite_differences(per: str) -> None:
    scope = Toy(dtype=torch.float64, n_layers=3)
    method = DuoAttention(steps=1, regularisation=0.3, per=per, **WINDOW)  # type: ignore[arg-type]
    gate = torch.rand(method.initial(scope.info)["gate"].shape, generator=torch.Generator().manual_seed(1)).double()
    gate = (0.2 + 0.6 * gate).requires_grad_()
    loss(method, {"gate": gate}, scope).backward()
    assert gate.grad is not None
    step = 1e-5
    for place in np.ndindex(*gate.shape):
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                other = gate.detach().clone()
                other[place] += sign * step
                moved.append(float(loss(method, {"gate": other}, scope)))
        expected = (moved[0] - moved[1]) / (2 * step)
        assert float(gate.grad[place]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    reached = gate.grad - 0.3 / gate.numel()
    assert (reached[:2].abs() > 1e-6).all(), "the loss reaches gates through later layers"


def test_gradients_of_hardkuma_gates_are_those_of_finite_differences() -> None:
    scope = Toy(dtype=torch.float64, n_layers=3)
    method = HardKuma(steps=1, share=0.2, **WINDOW)
    gates = {
        name: torch.full((3, 2), value, dtype=torch.float64, requires_grad=True)
        for name, value in zip("ab", (1.2, 0.9))
    }
    loss(method, gates, scope).backward()
    for name in gates:
        for place in np.ndindex(3, 2):
            moved = []
            for sign in (1, -1):
                with torch.no_grad():
                    other = {key: value.detach().clone() for key, value in gates.items()}
                    other[name][place] += sign * 1e-6
                    averages = loss(method, other, scope) - method.penalty(other, {})[0]
                    excess = method.constraint * (kept_mean(other) - method.target)
                    moved.append(float(averages + excess))
            grad = gates[name].grad
            assert grad is not None
            assert float(grad[place]) == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=2e-3, abs=2e-5)


def kept_mean(gates: dict[str, torch.Tensor]) -> torch.Tensor:
    return (1 - (1 / 12) ** gates["a"]).pow(gates["b"]).mean()


def test_sparse_heads_see_what_the_layer_below_ranks_first() -> None:
    scope, method, positions = Toy(), HardKuma(steps=1, share=0.2, **WINDOW), [20, 29]
    calls: list[AttentionCall] = []
    outputs: list[torch.Tensor] = []
    tap = method.mixing(scope.info, torch.tensor([[1.0, 1.0], [0.0, 0.25]]), positions)

    def listen(call: AttentionCall) -> torch.Tensor:
        calls.append(call)
        outputs.append(tap(call))
        return outputs[-1]

    targets = Targets(scope, PROMPTS)
    with torch.no_grad():
        targets.loss(0, listen)
    below, above = calls[-2:]  # the first two are the full model's
    logits = attention_logits(below)[0]
    for head in range(4):
        gate = (0.0, 0.0, 0.25, 0.25)[head]
        own = attention_logits(above)[0][0, head]
        for query in range(30):
            whole = own[query].softmax(-1) @ above.v[0, head // 2]
            expected = whole
            if query in positions:
                count = int(0.2 * (query + 1))
                best = set(logits[0, head, query].topk(count).indices.tolist())
                keys = sorted(best | {0} | set(range(query - 3, query + 1)))
                sparse = own[query, keys].softmax(-1) @ above.v[0, head // 2, keys]
                assert (sparse - whole).abs().max() > 1e-4
                expected = gate * whole + (1 - gate) * sparse
            torch.testing.assert_close(outputs[-1][0, head, query], expected, rtol=0, atol=1e-5)


def test_sink_and_recent_keys_may_be_part_of_the_share() -> None:
    scope, seen = Toy(), []
    for budget in ("beside", "within"):
        method = HardKuma(steps=1, share=0.5, budget=budget, sink_tokens=2, recent_tokens=3)  # type: ignore[arg-type]
        q = torch.randn(1, 4, 20, 8, generator=torch.Generator().manual_seed(0))
        call = AttentionCall(layer=0, q=q, k=q[:, :2], v=q[:, :2], scale=0.3)
        seen.append(method.chosen(call, torch.arange(20), q @ q.mT))
    beside, within = seen
    assert (within.sum(-1)[..., 10:] == (torch.arange(10, 20) + 1) // 2).all()
    assert (beside & ~within).any()
    for chosen in seen:
        assert chosen[..., 19, [0, 1, 17, 18, 19]].all()
        assert not (chosen & ~torch.ones(20, 20, dtype=torch.bool).tril()).any()
    assert scope.info.n_heads == 4


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_an_interrupted_run_ends_as_an_unbroken_one(method: DuoAttention | HardKuma, tmp_path: Path) -> None:
    whole = train(SCOPE, PROMPTS, method)
    path = tmp_path / "run" / "gates.safetensors"
    ticks: list[int] = []

    def stop(at: int) -> Any:
        def progress(done: int, total: int) -> None:
            ticks.append(done)
            assert total == 7
            if done == at:
                raise KeyboardInterrupt

        return progress

    for at in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            train(SCOPE, PROMPTS, method, checkpoint=path, every=0, progress=stop(at))
    again = train(SCOPE, PROMPTS, method, checkpoint=path, every=0, progress=stop(99))
    assert ticks == [1, 2, 3, 4, 5, 6, 7]
    for name, gate in whole.gates.items():
        np.testing.assert_array_equal(again.gates[name], gate)
    for name, values in whole.curves.items():
        assert len(values) == 7
        np.testing.assert_array_equal(again.curves[name], values)
    assert again.scalars == whole.scalars
    assert "exp_avg_sq.gate" in load_file(path) or "exp_avg_sq.a" in load_file(path)
    finished = train(SCOPE, PROMPTS, method, checkpoint=path, progress=lambda *_: pytest.fail("nothing is left to do"))
    assert all((finished.gates[name] == gate).all() for name, gate in whole.gates.items())


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    train(SCOPE, PROMPTS, METHODS[0], checkpoint=path)
    for method, prompts in ((METHODS[1], PROMPTS), (METHODS[0], PROMPTS.select([0, 1]))):
        with pytest.raises(OutputError, match="another training run"):
            train(SCOPE, prompts, method, checkpoint=path)
    path.write_bytes(b"no tensors")
    with pytest.raises(OutputError, match="unreadable"):
        train(SCOPE, PROMPTS, METHODS[0], checkpoint=path)


def test_only_the_gates_change() -> None:
    scope = Toy(seed=3)
    scope.model.requires_grad_(True)
    before = {name: weight.detach().clone() for name, weight in scope.model.named_parameters()}
    for method in METHODS:
        with torch.no_grad():
            train(scope, PROMPTS, method)
    for name, weight in scope.model.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None
        assert weight.requires_grad, "and what required gradients does so again"
    with scope.attach():
        pass  # nothing is attached any more


def test_open_gates_leave_the_model_as_it_is_and_curves_say_so() -> None:
    made = train_gates(SCOPE, PROMPTS, DuoAttention(steps=5, **WINDOW))
    assert made["distillation_loss"].values[0] == 0
    assert made["penalty"].values[0] == pytest.approx(0.05)
    assert made["distillation_loss"].values[1] > 0
    assert made["duo_gate"].dims == ("layer", "kv_head")
    assert {"sink_tokens", "recent_tokens", "learning_rate", "steps", "regularisation"} <= set(made.attrs)
    last = made["distillation_loss"].values[-3:].mean()
    assert made.attrs["final_distillation"] == pytest.approx(last)
    np.testing.assert_array_equal(made["duo_gate_head"].values, made["duo_gate"].values.repeat(2, axis=1))


@pytest.mark.parametrize(("layers", "target", "constraint"), [(2, 0.25, 20.0), (2, 0.5, 2.0), (3, 2 / 3, 2.0)])
def test_the_density_reaches_its_target(layers: int, target: float, constraint: float) -> None:
    alone = {"share": 0.0, "sink_tokens": 0, "recent_tokens": 1}  # sparse heads see themselves: every gate matters
    method = HardKuma(steps=200, target=target, constraint=constraint, learning_rate=0.02, **alone)  # type: ignore[arg-type]
    made = train_gates(Toy(n_layers=layers), PROMPTS, method)
    density = made["density"].values
    assert density[0] == pytest.approx(11 / 12)
    assert density[-1] == pytest.approx(target, abs=0.01)
    assert (np.diff(made["constraint"].values) >= 0).all()
    assert made["hardkuma_keep"].values.mean() == pytest.approx(density[-1], abs=0.01)
    assert (made["hardkuma_full"].values[0] == 1).all()
    free = train_gates(Toy(n_layers=layers), PROMPTS, replace(method, constraint=0.0))
    assert free["density"].values[-1] > 0.9


def test_hardkuma_per_query_head_takes_the_head_with_the_largest_mean() -> None:
    made = train_gates(SCOPE, PROMPTS, HardKuma(steps=30, per="query_head", learning_rate=0.05, **WINDOW))
    heads = made["hardkuma_mean_head"].values
    np.testing.assert_allclose(made["hardkuma_mean"].values, heads.reshape(2, 2, 2).max(-1))
    assert made.attrs["kv_reduction"] == "max"


def test_the_schedule_and_the_order_of_prompts() -> None:
    rates = [rate_at(step, 50) for step in range(50)]
    assert max(rates) == 1
    assert min(rates) == pytest.approx(0.1)
    assert rates[10:40] == [1.0] * 30
    order = [prompt_at(step, 5, seed=1) for step in range(10)]
    assert sorted(order[:5]) == sorted(order[5:]) == list(range(5))
    assert order != [prompt_at(step, 5, seed=2) for step in range(10)]


def test_a_loss_that_is_no_number_is_an_error_in_words() -> None:
    scope = Toy(seed=5)
    with torch.no_grad():
        scope.model.embedding[7] = torch.nan
    prompts = datasets.Dataset.from_dict({"input_ids": [[1, 2, 7, 4, 5, 6]], "query_positions": [[5]]})
    with pytest.raises(TaskError, match="distillation loss of step 0 on prompt 0: found nan"):
        train(scope, prompts, METHODS[0])
    with scope.attach():
        pass


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DuoAttention(steps=0), "0 steps"),
        (lambda: DuoAttention(recent_tokens=0), "0 recent"),
        (lambda: DuoAttention(per="layer"), "'layer'"),  # type: ignore[arg-type]
        (lambda: HardKuma(share=1.5), "share 1.5"),
        (lambda: HardKuma(budget="half"), "'half'"),  # type: ignore[arg-type]
        (lambda: train(SCOPE, PROMPTS.remove_columns("query_positions"), METHODS[0]), "query_positions"),
        (lambda: train(SCOPE, PROMPTS.select([]), METHODS[0]), "no prompts"),
        (lambda: train(SCOPE, prompts_asking([40]), METHODS[0]), r"found \[40\]"),
        (lambda: train(SCOPE, prompts_asking([]), METHODS[0]), r"found \[\]"),
    ],
)
def test_bad_input_is_named(make: Any, says: str) -> None:
    with pytest.raises(TaskError, match=says):
        make()


def prompts_asking(positions: list[int]) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"input_ids": [1, 2, 3], "query_positions": positions}])


def test_memory_that_runs_out_in_the_backward_pass_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(DeviceError, match=r"batch of 1 × \d+ tokens on cpu: found out of memory"):
        train(SCOPE, PROMPTS, METHODS[0])
