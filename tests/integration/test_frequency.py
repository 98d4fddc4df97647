"""Contextual and compound agreement of real models: planted chunks, the definition, invariances, the pocket model."""

from __future__ import annotations

import functools
import math
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from test_architectures import DECODERS, SMALL, build

import attnscope
from attnscope.analyses.frequency import dominant_chunks
from attnscope.core.errors import OutputError, TaskError, UnsupportedModelError
from attnscope.engine import frequency_pass
from attnscope.engine.batches import make_batch
from attnscope.engine.compound_agreement import compound_agreement, methods
from attnscope.engine.edited import edited
from attnscope.engine.frequency import agreement, partial_logits
from attnscope.engine.frequency_pass import Sampling
from attnscope.frequency_plan import FrequencyPlan
from attnscope.frequency_workflow import frequency_report
from attnscope.models._rotary import adjacent_order, find_rotary
from attnscope.models.hf import HFScope
from attnscope_kernels import AttentionCall

BIG = {**SMALL, "hidden_size": 64, "max_position_embeddings": 512}
NEOX = {k: v for k, v in BIG.items() if k != "num_key_value_heads"}
MODELS = {
    "llama": lambda: build("Llama", **BIG),
    "gpt_neox": lambda: build("GPTNeoX", **NEOX),
    "cohere": lambda: build("Cohere", **BIG),
    "glm": lambda: build("Glm", **{**BIG, "head_dim": 16}),
    "mistral": lambda: build("Mistral", **BIG, sliding_window=24),
}


@functools.cache
def scope_of(name: str) -> HFScope:
    return HFScope(MODELS[name]().double())


def random_prompts(lengths: list[int], seed: int = 0) -> datasets.Dataset:
    rng = np.random.default_rng(seed)
    return datasets.Dataset.from_dict({"input_ids": [rng.integers(3, 64, n).tolist() for n in lengths]})


def calls_of(scope: Any, prompts: datasets.Dataset, index: int) -> list[AttentionCall]:
    calls: list[AttentionCall] = []
    batch = make_batch(prompts, [index], scope.device)
    with torch.no_grad(), edited(scope, (), batch, listen=lambda call, _: calls.append(call)):
        scope.run(batch)
    return calls


def top(values: torch.Tensor, budget: int) -> set[int]:
    return set(sorted(range(len(values)), key=lambda j: (-float(values[j]), j))[:budget])


def seen_by(call: AttentionCall, query: int) -> range:
    return range(0 if call.window is None else max(0, query - call.window + 1), query + 1)


@pytest.mark.parametrize("name", MODELS)
def test_chunks_sum_to_the_whole_logit(name: str) -> None:
    scope = scope_of(name)
    order = find_rotary(scope).order
    for call in calls_of(scope, random_prompts([40]), 0):
        for way in (order, adjacent_order(scope.info.head_dim)):
            parts = partial_logits(call, torch.tensor([[39, 7]]), way)
            whole = call.q[:, :, [39, 7]] @ call.k.repeat_interleave(call.group_size, 1).mT
            torch.testing.assert_close(parts.sum(-2), whole, rtol=0, atol=1e-9 * float(whole.abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_agreement_is_its_definition(name: str) -> None:
    scope, prompts, sampling = scope_of(name), random_prompts([50, 33]), Sampling((3, 8), queries=4, seed=5)
    rotary = find_rotary(scope)
    found = agreement(scope, prompts, rotary, sampling)
    for p, length in enumerate((50, 33)):
        queries = [int(q) for q in sampling.draw(p, length)]
        for row, call in enumerate(calls_of(scope, prompts, p)):
            parts = partial_logits(call, torch.tensor([queries]), rotary.order)[0]
            for i, budget in enumerate(sampling.budgets):
                counted = [n for n, q in enumerate(queries) if len(seen_by(call, q)) >= 2 * budget]
                for head in range(scope.info.n_heads):
                    for chunk in range(scope.info.head_dim // 2):
                        shares = []
                        for n in counted:
                            keys = list(seen_by(call, queries[n]))
                            whole = top(parts[head, n].sum(0)[keys], budget)
                            shares.append(len(whole & top(parts[head, n, chunk][keys], budget)) / budget)
                        value = float(found.agreement[p, i, row, head, chunk])
                        assert value == pytest.approx(np.mean(shares), abs=1e-6)
                chance = np.mean([budget / len(seen_by(call, queries[n])) for n in counted])
                assert float(found.chance_agreement[p, i, row]) == pytest.approx(chance)


def test_a_head_that_one_chunk_carries_is_found() -> None:
    """All of the queries' weights but one pair a head are 0, so its logit is that chunk's alone."""
    model = build("Llama", **BIG)
    half, heads = 8, 4
    carried = {(layer, head): (3 * layer + head) % half for layer in range(2) for head in range(heads)}
    with torch.no_grad():
        for (layer, head), chunk in carried.items():
            rows = model.model.layers[layer].self_attn.q_proj.weight[head * 16 : (head + 1) * 16]
            kept = torch.zeros(16, 1)
            kept[[chunk, chunk + half]] = 1
            rows.mul_(kept)
    scope = HFScope(model)
    rotary, sampling = find_rotary(scope), Sampling((4, 8), queries=6)
    mean = agreement(scope, random_prompts([60, 60]), rotary, sampling).agreement.mean("prompt").values
    for (layer, head), chunk in carried.items():
        assert mean[:, layer, head, chunk] == pytest.approx(1.0)
        assert np.delete(mean[:, layer, head], chunk, axis=-1).max() < 0.9
    ranking = dominant_chunks(mean[0])
    assert {(layer, head): ranking[layer, head, 0] for layer, head in carried} == carried
    tried = compound_agreement(scope, random_prompts([60, 60], seed=1), ranking, (1, 2), rotary, sampling)
    by_choice = tried.compound_agreement.mean(("prompt", "layer", "head"))
    for name in ("chunks 1", "chunks 2"):
        assert by_choice.sel(choice=name).values == pytest.approx(1.0)
    for name in ("random", "recent", "stream", "snapkv", "random chunks 2"):
        assert float(by_choice.sel(choice=name).max()) < 0.9


def test_compound_agreement_is_its_definition() -> None:
    scope, prompts, sampling = scope_of("mistral"), random_prompts([45, 70]), Sampling((4, 10), queries=3, seed=2)
    rotary, info = find_rotary(scope), scope_of("mistral").info
    ranking = np.stack([np.random.default_rng(i).permutation(8) for i in range(8)]).reshape(2, 4, 8)
    found = compound_agreement(scope, prompts, ranking, (2, 5), rotary, sampling).compound_agreement
    assert [str(name) for name in found.choice.values] == list(methods((2, 5)))
    for p, length in enumerate((45, 70)):
        queries = [int(q) for q in sampling.draw(p, length)]
        for row, call in enumerate(calls_of(scope, prompts, p)):
            parts = partial_logits(call, torch.tensor([queries]), rotary.order)[0]
            for head in range(info.n_heads):
                for i, budget in enumerate(sampling.budgets):
                    shares: dict[str, list[float]] = {name: [] for name in methods((2, 5))}
                    for n, q in enumerate(queries):
                        keys = list(seen_by(call, q))
                        if len(keys) < 2 * budget:
                            continue
                        whole = {keys[j] for j in top(parts[head, n].sum(0)[keys], budget)}
                        picks = {
                            "recent": keys[-budget:],
                            "stream": keys[:4] + (keys[-(budget - 4) :] if budget > 4 else []),
                            "snapkv": snapkv(call, head, q, keys, budget),
                        }
                        for size in (2, 5):
                            some = parts[head, n, ranking[row, head, :size]].sum(0)[keys]
                            picks[f"chunks {size}"] = [keys[j] for j in top(some, budget)]
                        shares["random"].append(budget / len(keys))
                        for name, chosen in picks.items():
                            shares[name].append(len(whole & set(chosen)) / budget)
                    for name, values in shares.items():
                        got = float(found.sel(choice=name)[p, i, row, head])
                        if name != "random chunks 5":
                            assert got == pytest.approx(np.mean(values), nan_ok=True) if values else math.isnan(got)


def snapkv(call: AttentionCall, head: int, query: int, keys: list[int], budget: int) -> list[int]:
    votes = torch.zeros(call.k.shape[2] + 4, dtype=torch.float64)
    for observer in range(max(0, query - 32), query):
        visible = list(seen_by(call, observer))
        logits = call.scale * (call.k[0, head // call.group_size, visible] @ call.q[0, head, observer])
        votes[[2 + j for j in visible]] += logits.softmax(0)
    pooled = {j: float(votes[j : j + 5].mean()) for j in keys}
    last = keys[-min(32, budget // 2) :]
    rest = sorted((j for j in keys if j not in last), key=lambda j: (-pooled[j], j))
    return [*last, *rest[: budget - len(last)]]


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_batches_and_padding_change_nothing(name: str) -> None:
    scope, prompts, sampling = scope_of(name), random_prompts([50, 33, 41]), Sampling((3, 8), queries=4)
    rotary = find_rotary(scope)
    ranking = np.tile(np.arange(8), (2, 4, 1))
    together, alone = (
        (
            agreement(scope, prompts, rotary, sampling, batch_tokens=tokens).agreement.values,
            compound_agreement(
                scope, prompts, ranking, (2, 4), rotary, sampling, batch_tokens=tokens
            ).compound_agreement.values,
        )
        for tokens in (1000, 1)
    )
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_what_sees_too_few_keys_is_missing() -> None:
    scope = scope_of("llama")
    found = agreement(scope, random_prompts([7, 40]), find_rotary(scope), Sampling((4, 16), queries=3))
    assert found.agreement[0].isnull().all()
    assert found.agreement[1].notnull().all()
    short = agreement(scope, random_prompts([20]), find_rotary(scope), Sampling((4, 16), queries=3))
    assert short.agreement.sel(budget=4).notnull().all()
    assert short.agreement.sel(budget=16).isnull().all()


def test_layers_without_rope_are_missing() -> None:
    scope = HFScope(DECODERS["cohere2"]())
    found = agreement(scope, random_prompts([12]), find_rotary(scope), Sampling((2,), queries=3))
    assert found.agreement.sel(layer=0).notnull().all()
    assert found.agreement.sel(layer=1).isnull().all()


def test_it_goes_on_where_it_stopped(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequency_pass, "Checkpoint", functools.partial(frequency_pass.Checkpoint, every=0.0))
    scope, prompts, sampling = scope_of("llama"), random_prompts([50, 33, 41]), Sampling((3, 8), queries=4)
    rotary, path = find_rotary(scope), tmp_path / "state.safetensors"
    whole = agreement(scope, prompts, rotary, sampling, batch_tokens=1)

    def stop(done: int, _: int) -> None:
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agreement(scope, prompts, rotary, sampling, batch_tokens=1, progress=stop, checkpoint=path)
    seen: list[int] = []
    again = agreement(
        scope, prompts, rotary, sampling, batch_tokens=1, progress=lambda done, _: seen.append(done), checkpoint=path
    )
    assert seen == [74, 124]
    np.testing.assert_array_equal(again.agreement.values, whole.agreement.values)
    with pytest.raises(OutputError, match="another"):
        agreement(scope, prompts, rotary, Sampling((3, 9), queries=4), checkpoint=path)


def test_true_pairs_do_not_move_under_a_common_shift_and_adjacent_ones_do() -> None:
    scope = scope_of("llama")
    ids = torch.tensor(random_prompts([40])["input_ids"])
    parts: dict[str, list[torch.Tensor]] = {"true": [], "adjacent": []}
    orders = {"true": find_rotary(scope).order, "adjacent": adjacent_order(16)}
    for shift in (0, 37):
        calls: list[AttentionCall] = []
        with torch.no_grad(), edited(scope, listen=lambda call, _, calls=calls: calls.append(call)):
            scope.model(input_ids=ids, position_ids=torch.arange(40)[None] + shift)
        for name, order in orders.items():
            parts[name].append(partial_logits(calls[0], torch.tensor([[39]]), order))
    size = float(parts["true"][0].abs().max())
    assert float((parts["true"][0] - parts["true"][1]).abs().max()) < 1e-5 * size
    assert float((parts["adjacent"][0] - parts["adjacent"][1]).abs().max()) > 0.1 * size


@pytest.fixture(scope="module")
def pocket() -> Any:
    return frequency_report(
        attnscope.load(device="cpu"), FrequencyPlan(context=512, prompts=3, queries=6, task_prompts=2)
    )


def test_half_of_the_chunks_beat_every_baseline_at_every_budget(pocket: Any) -> None:
    assert pocket.n_chunks == 32
    assert pocket.budgets == (8, 16, 32, 64)
    for budget in pocket.budgets:
        value = {c.method: c.agreement.value for c in pocket.choices if c.budget == budget}
        rivals = ("random", "recent", "stream", "snapkv", "random chunks 16")
        assert value["chunks 16"] > max(value[name] for name in rivals) + 0.05
        assert value["chunks 4"] < value["chunks 8"] < value["chunks 16"]
    margins = [m.difference.interval.low for m in pocket.margins if m.chunks == 16]
    assert min(margins) > 0


def test_tasks_share_more_chunks_than_chance(pocket: Any) -> None:
    assert pocket.tasks == ("text", "needle", "recall", "reasoning")
    assert len(pocket.overlaps) == 10
    assert min(one.overlap for one in pocket.overlaps) > 2 * pocket.overlaps[0].chance


def test_the_report_says_how_pairs_turn(pocket: Any) -> None:
    assert (pocket.pairing, pocket.rotary_dims) == ("rotate_half", 64)
    (waves,) = pocket.wavelengths
    assert waves.tokens[0] == pytest.approx(2 * math.pi, rel=1e-5)
    assert waves.tokens[31] == pytest.approx(2 * math.pi * 100_000 ** (31 / 32), rel=1e-5)
    assert type(pocket).from_json(pocket.to_json()) == pocket


def test_models_without_rope_are_refused_before_anything_runs() -> None:
    with pytest.raises(UnsupportedModelError, match="learned or added positions"):
        frequency_report(HFScope(DECODERS["gpt2"]()))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pairing": "wrong"}, "'model' or 'adjacent'"),
        ({"tasks": ("needle",)}, "'text' first"),
        ({"budgets": (8, 4)}, "ascending"),
        ({"budgets": (4, 8), "budget": 5}, r"one of \(4, 8\)"),
        ({"queries": 0}, "at least 1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(TaskError, match=says):
        FrequencyPlan(**changes)


def test_sizes_and_contexts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TaskError, match="at most 32"):
        FrequencyPlan(sizes=(64,)).sizes_for(32)
    with pytest.raises(TaskError, match="twice the smallest"):
        FrequencyPlan(budgets=(300,)).budgets_for(512)
    scope = scope_of("llama")
    with pytest.raises(TaskError, match="at most 512"):
        FrequencyPlan(context=513).context_for(scope.info)


def test_your_own_prompts_and_a_single_one() -> None:
    scope = scope_of("llama")
    plan = FrequencyPlan(queries=3, tasks=("text",))
    two = frequency_report(scope, plan, prompts=random_prompts([64, 64]))
    assert (two.n_prompts, two.n_held_out) == (1, 1)
    one = frequency_report(scope, plan, prompts=random_prompts([64]))
    assert one.choices == ()
    assert any("there is one prompt" in note for note in one.notes)


def test_the_adjacent_pairing_is_recorded_and_has_no_wavelengths() -> None:
    plan = FrequencyPlan(queries=3, tasks=("text",), pairing="adjacent")
    report = frequency_report(scope_of("llama"), plan, prompts=random_prompts([64, 64]))
    assert report.pairing == "adjacent"
    assert {value for group in report.wavelengths for value in group.tokens} == {None}
    assert {head.low_frequency_share for head in report.heads} == {None}
