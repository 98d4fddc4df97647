"""Sparse decoding: roles, memory, and generation with a key/value cache against full recomputation with a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attnscope
from attnscope.analyses.kv_choice import budget_count, full_under_budget, rank_values, ranking, reduce_to_kv
from attnscope.core.errors import StatisticsError, TaskError, UnknownHeadError
from attnscope.decoding.memory import cache_bytes, cache_tokens
from attnscope.decoding.roles import KVRoles
from attnscope.decoding.streaming import StreamingDecoder
from attnscope.tasks.text import Text

LENGTH, NEW = 40, 6


@pytest.fixture(scope="module")
def scope():
    return attnscope.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def roles() -> KVRoles:
    return KVRoles.random((8, 4), 0.25, seed=3, sink_tokens=2, recent_tokens=7)


@pytest.fixture(scope="module")
def prompts(scope) -> list[list[int]]:
    """English of different lengths, BOS first."""
    prose = Text(n=2, length=LENGTH).build(scope.tokenizer)["input_ids"]
    return [prose[0], prose[1][:23]]


def masked_logits(model, ids: list[int], roles: KVRoles, dense: int = 0) -> torch.Tensor:
    """Next-token logits of one forward without a cache: attention in plain torch, its mask written out.

    Queries before `dense` see everything.
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    n = len(ids)
    i, j = torch.arange(n)[:, None], torch.arange(n)
    causal = j <= i
    window = causal & ((j < roles.sink_tokens) | (i - j < roles.recent_tokens) | (i < dense))
    x = model.model.embed_tokens(torch.tensor([ids]))
    cosine, sine = model.model.rotary_emb(x, torch.arange(n)[None])
    for layer, block in enumerate(model.model.layers):
        attention, read = block.self_attn, block.input_layernorm(x)
        q, k, v = (
            proj(read).view(1, n, -1, attention.head_dim).transpose(1, 2)
            for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cosine, sine)
        group = q.shape[1] // k.shape[1]
        seen = torch.stack([causal if full else window for full in roles.full[layer].tolist()])
        weights = q @ k.repeat_interleave(group, 1).mT * attention.head_dim**-0.5
        weights = weights.masked_fill(~seen.repeat_interleave(group, 0), -torch.inf).softmax(-1)
        z = (weights @ v.repeat_interleave(group, 1)).transpose(1, 2).reshape(1, n, -1)
        x = x + attention.o_proj(z)
        x = x + block.mlp(block.post_attention_layernorm(x))
    return model.lm_head(model.model.norm(x))[0]


@torch.no_grad()
def recomputed(model, ids: list[int], roles: KVRoles, dense: int = 0) -> list[int]:
    """Greedy decoding without a cache: every step computes the whole sequence anew."""
    made = list(ids)
    for _ in range(NEW):
        made.append(int(masked_logits(model, made, roles, dense)[-1].argmax()))
    return made[len(ids) :]


def padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, padded on the left."""
    rows = [[1] * (LENGTH - len(ids)) + ids for ids in prompts]
    mask = [[0] * (LENGTH - len(ids)) + [1] * len(ids) for ids in prompts]
    return torch.tensor(rows), torch.tensor(mask)


OPTIONS = {"max_new_tokens": NEW, "min_new_tokens": NEW}


def test_generation_with_a_cache_is_full_recomputation_with_a_mask(scope, roles, prompts) -> None:
    decoder = StreamingDecoder(scope, roles)
    alone = [decoder.generate(torch.tensor([ids]), **OPTIONS)[0, len(ids) :].tolist() for ids in prompts]
    assert alone == [recomputed(scope.model, ids, roles) for ids in prompts]
    ids, mask = padded(prompts)
    assert decoder.generate(ids, mask, **OPTIONS)[:, LENGTH:].tolist() == alone
    plain = scope.model.generate(ids, attention_mask=mask, do_sample=False, **OPTIONS)[:, LENGTH:].tolist()
    assert plain != alone, "the window changed nothing, so this test shows nothing"


def test_a_dense_prefill_streams_from_the_first_new_token_on(scope, roles, prompts) -> None:
    decoder = StreamingDecoder(scope, roles, prefill="dense")
    expected = [recomputed(scope.model, ids, roles, dense=len(ids) - 1) for ids in prompts]
    ids, mask = padded(prompts)
    assert decoder.generate(ids, mask, **OPTIONS)[:, LENGTH:].tolist() == expected
    assert expected != [recomputed(scope.model, ids, roles) for ids in prompts]
    earlier = decoder.generate(torch.tensor([prompts[0]]), dense_tokens=30, **OPTIONS)[0, LENGTH:].tolist()
    assert earlier == recomputed(scope.model, prompts[0], roles, dense=30)
    nothing = decoder.generate(torch.tensor([prompts[0]]), dense_tokens=0, **OPTIONS)[0, LENGTH:].tolist()
    assert nothing == recomputed(scope.model, prompts[0], roles)


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_forward_with_padding_is_the_mask(scope, roles, prompts, side: str) -> None:
    ids, mask = padded(prompts)
    if side == "right":
        shift = LENGTH - len(prompts[1])
        ids[1], mask[1] = ids[1].roll(-shift), mask[1].roll(-shift)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), StreamingDecoder(scope, roles).attached():
        got = scope.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    for row, each in enumerate(prompts):
        with torch.no_grad():
            expected = masked_logits(scope.model, each, roles)
        torch.testing.assert_close(got[row][mask[row].bool()], expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("prefill", ["dense", "streaming"])
def test_all_heads_full_is_plain_generation(scope, prompts, prefill) -> None:
    everything = KVRoles(np.ones((8, 4), dtype=bool), sink_tokens=0, recent_tokens=1)
    ids, mask = padded(prompts)
    plain = scope.model.generate(ids, attention_mask=mask, do_sample=False, **OPTIONS)
    assert torch.equal(StreamingDecoder(scope, everything, prefill).generate(ids, mask, **OPTIONS), plain)
    assert everything.edits(scope.info) == ()


def test_the_model_is_left_as_it_was(scope, roles, prompts) -> None:
    ids = torch.tensor([prompts[0]])
    with torch.no_grad():
        before = scope.model(ids).logits
        StreamingDecoder(scope, roles).generate(ids, max_new_tokens=2)
        torch.testing.assert_close(scope.model(ids).logits, before, atol=0, rtol=0)


@pytest.mark.parametrize("budget", [0.0, 0.03, 0.0625, 0.125, 0.25, 0.5, 0.99, 1.0])
def test_budgets_are_counted_exactly(budget: float) -> None:
    scores = np.random.default_rng(0).random((8, 4)).round(1)  # with ties
    for made in (KVRoles.from_scores(scores, budget), KVRoles.random((8, 4), budget, seed=1)):
        assert made.full.sum() == round(budget * 32) == budget_count(budget, 32)
        assert made.fraction == made.full.sum() / 32
    kept = np.sort(scores[full_under_budget([scores], budget)])
    left = scores[~full_under_budget([scores], budget)]
    assert not kept.size or not left.size or kept[0] >= left.max()


def test_ties_go_to_the_next_score_then_to_the_first_head() -> None:
    first, second = np.array([[0.0, 0.5], [0.0, 0.0]]), np.array([[0.1, 0.0], [0.3, np.nan]])
    assert ranking([first, second]).tolist() == [1, 2, 0, 3]
    assert ranking([np.zeros((2, 2))]).tolist() == [0, 1, 2, 3]
    assert ranking([np.array([[np.nan, 0.0]])]).tolist() == [1, 0]
    values = rank_values([first, second])
    for budget in (0.25, 0.5, 0.75):  # as kvpress cuts a pattern
        pruned = np.argsort(values, axis=None)[: round(4 * (1 - budget))]
        assert not full_under_budget([first, second], budget).ravel()[pruned].any()


def test_group_scores_are_the_largest_of_the_group() -> None:
    scores = np.array([[0.1, 0.7, 0.2, 0.4], [np.nan, 0.3, np.nan, np.nan]])
    np.testing.assert_array_equal(reduce_to_kv(scores, 2), [[0.7, 0.4], [np.nan, np.nan]])
    with pytest.raises(StatisticsError, match="4 heads"):
        reduce_to_kv(scores, 3)


def test_random_roles_follow_the_seed_and_leave_out_what_is_excluded() -> None:
    taken = np.zeros((8, 4), dtype=bool)
    taken[7] = True
    draws = [KVRoles.random((8, 4), 0.25, seed, exclude=taken) for seed in range(20)]
    assert not any(draw.full[7].any() for draw in draws)
    assert len({draw.full.tobytes() for draw in draws}) > 10
    again = KVRoles.random((8, 4), 0.25, 4, exclude=taken)
    np.testing.assert_array_equal(again.full, draws[4].full)
    with pytest.raises(TaskError, match="28 KV heads to draw from"):
        KVRoles.random((8, 4), 1.0, 0, exclude=taken)


def test_a_cache_keeps_what_the_heads_may_see() -> None:
    made = KVRoles(np.array([[True, False], [False, False]]), sink_tokens=3, recent_tokens=5)
    assert cache_tokens(made, 100) == 100 + 3 * 8
    assert cache_tokens(made, 6) == 4 * 6
    assert cache_bytes(made, 100, head_dim=64) == 124 * 128 * 2
    assert cache_bytes(made, 100, head_dim=8, value_dim=4, bytes_per_number=4, prompts=3) == 124 * 12 * 4 * 3
    with pytest.raises(TaskError, match="-1"):
        cache_tokens(made, -1)


def test_bad_roles_are_named(scope) -> None:
    table = np.zeros((8, 4), dtype=bool)
    for budget in (-0.1, 1.5, float("nan")):
        with pytest.raises(TaskError, match="budget of full KV heads"):
            KVRoles.from_scores(np.ones((8, 4)), budget)
        with pytest.raises(TaskError, match="budget of full KV heads"):
            KVRoles.random((8, 4), budget, 0)
    with pytest.raises(TaskError, match="0 recent tokens"):
        KVRoles(table, recent_tokens=0)
    with pytest.raises(TaskError, match="-1 sinks"):
        KVRoles(table, sink_tokens=-1)
    with pytest.raises(TaskError, match=r"bool \[L, G\]"):
        KVRoles(np.zeros((8, 4)))
    with pytest.raises(UnknownHeadError, match=r"8 layers of 8 KV heads.*8 attention layers of 4"):
        StreamingDecoder(scope, KVRoles(np.zeros((8, 8), dtype=bool)))
    with pytest.raises(TaskError, match="prefill: found 'sparse'"):
        StreamingDecoder(scope, KVRoles(table), "sparse")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="5 tokens; expected 0 to 2"):
        StreamingDecoder(scope, KVRoles(table), "dense").generate(torch.tensor([[0, 5, 7]]), dense_tokens=5)
    with pytest.raises(TaskError, match="a streaming prefill"):
        StreamingDecoder(scope, KVRoles(table)).generate(torch.tensor([[0, 5, 7]]), dense_tokens=1)
    with pytest.raises(StatisticsError, match="none that was measured"):
        KVRoles.from_scores(np.full((8, 4), np.nan), 0.5)
