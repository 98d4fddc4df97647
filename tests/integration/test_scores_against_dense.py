"""Every head score against the plain formula on the dense attention matrix."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch

import attnscope
from attnscope.collectors import collectors
from attnscope.engine.batches import make_batch
from attnscope.engine.collect import collect
from attnscope.tasks.repeats import Repeats
from attnscope_kernels import AttentionCall, attend

SCOPE = attnscope.load(backend="toy")
PERIOD = 12
REPEATS = Repeats(n=3, period=PERIOD, copies=3, vocab_size=SCOPE.info.vocab_size).build()
T = 3 * PERIOD


@pytest.fixture(scope="module")
def dense() -> torch.Tensor:
    """Attention matrices `[prompts, L, H, T, T]` in float64, from q and k alone."""
    rows: list[torch.Tensor] = []

    def tap(call: AttentionCall) -> torch.Tensor:
        k = call.k.double().repeat_interleave(call.group_size, 1)
        logits = call.q.double() @ k.mT * call.scale
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        rows.append(logits.masked_fill(future, -torch.inf).softmax(-1))
        output = attend(call).output
        assert output is not None
        return output

    with torch.no_grad(), SCOPE.attach(tap):
        SCOPE.run(make_batch(REPEATS, [0, 1, 2], "cpu"))
    return torch.stack(rows, 1)


SEPARATE = ("retrieval", "passage_mass", "sink_rate", "sink_mass", "received_max")
"""Collectors that need other columns or parameters."""


@pytest.fixture(scope="module")
def collected():
    names = [n for n in collectors.names() if n not in SEPARATE]
    extra = [
        collectors.get("sink_rate")(epsilon=0.2, lengths=(10, T)),
        collectors.get("sink_mass")(threshold=0.06, min_queries=5),
        collectors.get("received_max")(min_queries=5),
    ]
    return collect(SCOPE, REPEATS, [*names, *extra])


def close(got, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(np.asarray(got), expected.numpy(), atol=1e-5, rtol=1e-4)


def later_queries() -> torch.Tensor:
    return torch.arange(T, 0, -1).double()


def test_first_token_mass_and_sink_rate(dense, collected) -> None:
    close(collected.first_token_mass, dense[..., 0].mean(-1))
    for length in (10, T):
        rate = 100 * (dense[..., :length, 0].mean(-1) > 0.2).double().mean(0)
        close(collected.sink_rate.sel(length=length), rate)
    assert 0 < float(collected.sink_rate.mean()) < 100


def test_pattern_scores(dense, collected) -> None:
    i = torch.arange(PERIOD, T)  # repeats without a tokenizer have no BOS
    close(collected.induction, dense[..., i, i + 1 - PERIOD].mean(-1))
    close(collected.duplicate_token, dense[..., i, i - PERIOD].mean(-1))
    second = torch.arange(2 * PERIOD, T)
    echo = dense[..., i, i - PERIOD].sum(-1) + dense[..., second, second - 2 * PERIOD].sum(-1)
    close(collected.echo, echo / len(i))
    j = torch.arange(1, T)
    close(collected.previous_token, dense[..., j, j - 1].mean(-1))


def test_row_scores(dense, collected) -> None:
    entropy = -(dense * dense.clamp_min(1e-300).log()).sum(-1)
    close(collected.entropy, entropy.mean(-1))
    close(collected.entropy_normalized, (entropy[..., 1:] / torch.arange(2, T + 1).log()).mean(-1))
    close(collected.max_prob, dense.amax(-1).mean(-1))
    distance = (torch.arange(T)[:, None] - torch.arange(T)).clamp_min(0).double()
    close(collected.mean_distance, (dense * distance).sum(-1).mean(-1))
    close(collected.local_mass, (dense * (distance < 16)).sum(-1).mean(-1))


def test_received(dense, collected) -> None:
    alpha = dense.sum(-2) / later_queries()
    close(collected.received_mass[..., :T], alpha.mean(0))
    close(collected.received_max, alpha[..., : T - 4].amax(-1))
    sinks = (alpha.mean(2) > 0.06) & (later_queries() >= 5)
    assert sinks.any()
    assert not sinks.all()
    close(collected.sink_mass, (dense.sum(-2) * sinks[:, :, None]).sum(-1) / T)
    found = ~np.isnan(collected.sink_position.values)
    np.testing.assert_array_equal(found.sum(-1), sinks.sum(-1).clamp(max=found.shape[-1]).numpy())
    for p, row, rank in zip(*np.nonzero(found), strict=True):
        position = int(collected.sink_position.values[p, row, rank])
        assert sinks[p, row, position]
        assert collected.sink_token.values[p, row, rank] == REPEATS[int(p)]["input_ids"][position]


def test_mass_by_distance(dense, collected) -> None:
    for i, low in enumerate(collected.distance_bin.values):
        high = [*collected.distance_bin.values, T][i + 1]
        distance = torch.arange(T)[:, None] - torch.arange(T)
        inside = (distance >= low) & (distance < high)
        close(collected.mass_by_distance[..., i], (dense * inside).sum((-1, -2)).mean(0) / T)
    np.testing.assert_allclose(collected.mass_by_distance.sum("distance_bin"), 1, atol=1e-5)


def test_positional_share_is_the_mean_kl_to_the_static_row(dense, collected) -> None:
    i, j = torch.tril_indices(T, T)
    share = torch.zeros(dense.shape[1:3], dtype=torch.float64)
    for row, head in np.ndindex(*share.shape):
        a = dense[:, row, head]
        weight = torch.zeros(T, dtype=torch.float64)
        weight.index_add_(0, i - j, a[:, i, j].sum(0))
        weight /= len(dense) * later_queries()
        static = torch.zeros(T, T, dtype=torch.float64)
        static[i, j] = weight[i - j]
        static /= static.sum(-1, keepdim=True)
        kl = (a[:, i, j] * (a[:, i, j].clamp_min(1e-300) / static[i, j]).log()).sum() / (len(dense) * T)
        share[row, head] = (-kl).exp()
    close(collected.positional_share, share)


def test_retrieval_counts_top_keys_on_their_source(dense) -> None:
    source = [[3, 5], [2, 9], [1, 7]]
    queries = [[T - 1, 20], [30, T - 1], [15, 16]]
    prompts = REPEATS.add_column("query_positions", queries).add_column("source_positions", source)
    top = dense.argmax(-1)
    prompts = prompts.map(
        lambda row, p: {"source_positions": [source[p][0], int(top[p, 0, 1, queries[p][1]])]}, with_indices=True
    )
    expected = torch.stack(
        [
            torch.stack([top[p, :, :, q] == s for q, s in zip(queries[p], prompts[p]["source_positions"], strict=True)])
            .double()
            .mean(0)
            for p in range(3)
        ]
    )
    got = collect(SCOPE, prompts, ["retrieval"]).retrieval
    close(got, expected)
    assert float(got[:, 0, 1].min()) >= 0.5


def test_passage_mass_is_the_mean_over_the_questions_tokens(dense) -> None:
    spans, asked = [[2, 6], [0, 4], [9, 11]], [[20, 22], [15], [30, T - 1]]
    prompts = REPEATS.add_column("gold_span", spans).add_column("question_positions", asked)
    expected = torch.stack([dense[p, :, :, asked[p], low:high].sum(-1).mean(-1) for p, (low, high) in enumerate(spans)])
    close(collect(SCOPE, prompts, ["passage_mass"]).passage_mass, expected)


def test_value_norms(collected) -> None:
    ratios: list[torch.Tensor] = []
    drains: list[torch.Tensor] = []

    def tap(call: AttentionCall) -> torch.Tensor:
        v = call.v.double().repeat_interleave(call.group_size, 1)
        written = torch.einsum("bhtd,hdm->bhtm", v, SCOPE.output_projection(call.layer).double())
        for norms, into in ((v.norm(dim=-1), ratios), (written.norm(dim=-1), drains)):
            into.append(norms[..., 0] / norms[..., 1:].mean(-1))
        output = attend(call).output
        assert output is not None
        return output

    with torch.no_grad(), SCOPE.attach(tap):
        SCOPE.run(make_batch(REPEATS, [0, 1, 2], "cpu"))
    close(collected.value_norm_ratio, torch.stack(ratios, 1))
    close(collected.value_drain, torch.stack(drains, 1))


def test_residual_stream(collected) -> None:
    streams: dict[tuple[int, str], torch.Tensor] = {}
    with torch.no_grad(), SCOPE.attach(residual=lambda layer, site, x: streams.__setitem__((layer, site), x.double())):
        SCOPE.run(make_batch(REPEATS, [0, 1, 2], "cpu"))
    for (layer, site), x in streams.items():
        at = collected.sel(site=site, block=layer)
        close(at.residual_norm_first, x.norm(dim=-1)[:, 0])
        close(at.residual_norm_others, x.norm(dim=-1)[:, 1:].mean(1))
        if site == "block_output":
            close(at.residual_mean_abs, x[:, 1:].abs().mean((0, 1)))
            close(at.residual_max_abs, x.abs().amax((1, 2)))


def test_datasets_with_missing_columns_are_refused() -> None:
    plain = datasets.Dataset.from_dict({"input_ids": [[1, 2, 3]]})
    for name, column in (("induction", "period"), ("retrieval", "query_positions")):
        with pytest.raises(attnscope.AttnscopeError, match=column):
            collect(SCOPE, plain, [name])
