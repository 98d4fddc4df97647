"""Sinks of ACT by both criteria against the dense matrix, and the choice of heads against the plain loop."""

from __future__ import annotations

from collections import defaultdict

import datasets
import numpy as np
import pytest
import torch
from _dense_call import weights_of

import attnscope
from attnscope.core.errors import TaskError
from attnscope.core.ids import HeadId
from attnscope.edits.calibrate_sinks import CalibrateSinks
from attnscope.engine.accuracy import token_accuracy
from attnscope.engine.act import act_sinks, choose_heads
from attnscope.engine.batches import make_batch
from attnscope_kernels import AttentionCall, attend

SCOPE = attnscope.load(backend="toy")
IDS = [
    torch.randint(0, SCOPE.info.vocab_size, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    for n in (30, 12, 21)
]


def targets_of(ids: list[int]) -> list[int]:
    """At each place one of the model's two most likely tokens in turn, so that edits move accuracy both ways."""
    batch = make_batch(datasets.Dataset.from_dict({"input_ids": [ids]}), [0], "cpu")
    with torch.no_grad():
        best = SCOPE.logits(batch)[0].topk(2).indices.tolist()
    return [pair[place % 2] for place, pair in enumerate(best)]


PROMPTS = datasets.Dataset.from_dict(
    {
        "input_ids": IDS,
        "query_positions": [list(range(len(ids))) for ids in IDS],
        "target_ids": [targets_of(ids) for ids in IDS],
    }
)


def matrices(prompt: int) -> dict[int, torch.Tensor]:
    """A `[H, T, T]` of every layer."""
    found: dict[int, torch.Tensor] = {}

    def tap(call: AttentionCall) -> torch.Tensor:
        found[call.layer] = weights_of(call)[0][0]
        output = attend(call).output
        assert output is not None
        return output

    with torch.no_grad(), SCOPE.attach(tap):
        SCOPE.run(make_batch(PROMPTS, [prompt], "cpu"))
    return found


@pytest.mark.parametrize(("mode", "alpha"), [("paper", 1.5), ("repo", 5.0)])
def test_sinks_are_those_of_the_dense_matrix(mode: str, alpha: float) -> None:
    found = act_sinks(SCOPE, PROMPTS, mode, alpha=alpha)  # type: ignore[arg-type]
    assert len(found) == 3
    for prompt, ids in enumerate(IDS):
        expected: dict[HeadId, tuple[int, ...]] = defaultdict(tuple)
        n = len(ids)
        for layer, weights in matrices(prompt).items():
            for head in range(SCOPE.info.n_heads):
                for j in range(1, n):
                    received = float(weights[head, :, j].sum())
                    if received / n > alpha / n if mode == "paper" else received / (n - j) > 0.1:
                        expected[HeadId(layer, head)] += (j,)
        assert found[prompt] == expected
    assert any(found)


def test_chosen_heads_are_those_of_the_plain_loop() -> None:
    sinks = act_sinks(SCOPE, PROMPTS, "repo")
    ticks: list[tuple[int, int]] = []
    choice = choose_heads(
        SCOPE, PROMPTS, sinks=sinks, layers=[1], beta=0.0, batch_tokens=64, progress=lambda *x: ticks.append(x)
    )
    assert ticks[-1] == (4, 4)
    np.testing.assert_allclose(choice.baseline, token_accuracy(SCOPE, PROMPTS))
    moved = False
    for column, head in enumerate(choice.tested):
        change = []
        for prompt in range(3):
            one, mine = PROMPTS.select([prompt]), sinks[prompt].get(head, ())
            edits = [CalibrateSinks({head: mine}, beta=0.0)] if mine else []
            change.append(token_accuracy(SCOPE, one, edits=edits)[0] - token_accuracy(SCOPE, one)[0])
        moved |= any(change)
        assert choice.change[column] == pytest.approx(np.mean(change))
        assert choice.prompts[column] == sum(head in each for each in sinks)
        assert (head in choice.heads) == (np.mean(change) > 1e-9)
        assert choice.low[column] <= choice.change[column] + 1e-12
        assert choice.change[column] <= choice.high[column] + 1e-12
    assert moved


def test_bad_input_is_named() -> None:
    with pytest.raises(TaskError, match="mode 'other'"):
        act_sinks(SCOPE, PROMPTS, "other")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="positive"):
        act_sinks(SCOPE, PROMPTS, alpha=0)
    with pytest.raises(TaskError, match=r"layers \[9\]"):
        choose_heads(SCOPE, PROMPTS, layers=[1, 9])
    with pytest.raises(TaskError, match="1 prompts"):
        choose_heads(SCOPE, PROMPTS, layers=[1], sinks=[{}])
