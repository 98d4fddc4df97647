"""Answers under edits: one prefill against whole forwards, teacher forcing against greedy decoding, KV heads alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from _fake_report import fake_report

import attnscope
from attnscope.analyses.streaming_scores import streaming_scores
from attnscope.core.errors import TaskError, UnsupportedModelError
from attnscope.core.report import Measured
from attnscope.decoding.roles import KVRoles
from attnscope.decoding.streaming import StreamingDecoder
from attnscope.edits.stream_window import StreamWindow
from attnscope.engine.answers import answer_scores
from attnscope.engine.edited import edited
from attnscope.engine.prefix import Prefix
from attnscope.engine.streaming_effects import streaming_effects
from attnscope.reports.decode_plan import plan_under_budget
from attnscope.tasks.needle import Needle
from attnscope_kernels import Want

LENGTH = 160


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Short prompts gain nothing from threads, and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scope():
    return attnscope.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def needles(scope):
    return Needle(n=3, length=LENGTH, seed=2).build(scope.tokenizer)


@pytest.fixture(scope="module")
def choices() -> list[KVRoles]:
    """All full, two random choices and none; windows that hide the needle."""
    window = {"sink_tokens": 2, "recent_tokens": 12}
    drawn = [KVRoles.random((8, 4), budget, seed, **window) for budget, seed in ((0.5, 0), (0.5, 1))]
    return [KVRoles(np.ones((8, 4), bool)), *drawn, KVRoles(np.zeros((8, 4), bool), **window)]


@pytest.mark.parametrize(("prefill", "decoded"), [("dense", "dense"), ("edited", "streaming")])
def test_teacher_forcing_is_greedy_decoding(scope, needles, choices, prefill, decoded) -> None:
    found = answer_scores(scope, needles, lambda i: [r.edits(scope.info) for r in choices], prefill=prefill).right
    for i, row in enumerate(needles):
        ids, n = torch.tensor([row["input_ids"]]), len(row["answer_ids"])
        read = {"dense_tokens": row["question_position"]} if decoded == "dense" else {}
        for column, roles in enumerate(choices):
            made = StreamingDecoder(scope, roles, decoded).generate(ids, max_new_tokens=n, **read)
            assert found[i, column] == (made[0, ids.shape[1] :].tolist() == row["answer_ids"])
    assert found[:, 0].all()
    assert not found[:, -1].all()


def test_a_continuation_is_the_end_of_one_forward_and_leaves_the_prefix(scope, needles) -> None:
    ids, start = needles[0]["input_ids"], 100
    windows = [StreamWindow(None, 2, 12)]
    prefix = Prefix(scope, ids[:start], windows)
    with torch.no_grad(), edited(scope, windows):
        whole = scope.model(input_ids=torch.tensor([ids])).logits[0, start:]
    for _ in range(2):
        torch.testing.assert_close(prefix.logits(ids[start:], windows), whole, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(prefix.logits(ids[start:]), whole, atol=1e-2)


@pytest.mark.parametrize("heads", [None, (attnscope.HeadId(7, 0), attnscope.HeadId(3, 5))])
def test_heads_that_an_edit_computes_anew_need_no_attention(scope, needles, heads) -> None:
    """With a listener all of attention is computed, without one not: the logits are the same."""
    ids, windows = torch.tensor([needles[0]["input_ids"]]), [StreamWindow(heads, 2, 12)]
    with torch.no_grad(), edited(scope, windows, want=Want(), listen=lambda call, result: None):
        whole = scope.model(input_ids=ids).logits
    with torch.no_grad(), edited(scope, windows):
        torch.testing.assert_close(scope.model(input_ids=ids).logits, whole, atol=1e-4, rtol=1e-4)


def test_an_interrupted_run_goes_on(scope, needles, tmp_path) -> None:
    where, seen = tmp_path / "answers.safetensors", []

    def stop(done: int, _: int) -> None:
        seen.append(done)
        if seen == [1]:
            raise KeyboardInterrupt

    def score(progress):
        return answer_scores(scope, needles, lambda i: [()], progress=progress, checkpoint=where)

    with pytest.raises(KeyboardInterrupt):
        score(stop)
    again = score(stop)
    assert seen in ([1, 1, 2, 3], [1, 2, 3])  # the checkpoint is written every few seconds at most
    whole = answer_scores(scope, needles, lambda i: [()])
    np.testing.assert_allclose(again.log_probability, whole.log_probability)


def test_effects_of_single_kv_heads(scope, needles) -> None:
    two = needles.select([0, 1])
    found = streaming_effects(scope, two, sink_tokens=2, recent_tokens=12)
    ends = {"sink_tokens": 2, "recent_tokens": 12}
    for layer, kv_head in ((7, 0), (2, 3)):
        alone = np.zeros((8, 4), bool)
        alone[layer, kv_head] = True
        treated = [(), *(KVRoles(t, **ends).edits(scope.info) for t in (~alone, alone, np.zeros((8, 4), bool)))]
        full, without, only, none = answer_scores(scope, two, lambda i, t=treated: t).log_probability[0]
        assert float(found.streaming_loss[0, layer, kv_head]) == pytest.approx(full - without, abs=1e-4)
        assert float(found.streaming_gain[0, layer, kv_head]) == pytest.approx(only - none, abs=1e-4)
    assert float(found.streaming_gain[0, 7, 0]) == float(found.streaming_gain[0].max()) > 1
    scores = streaming_scores(found)
    assert (scores.streaming_gain_low <= scores.streaming_gain + 1e-9).all()
    assert (scores.streaming_gain <= scores.streaming_gain_high + 1e-9).all()


@pytest.mark.parametrize("budget", [0.0, 0.25, 0.5, 1.0])
def test_a_plan_under_a_budget_keeps_the_best(budget: float) -> None:
    report = fake_report()[0]
    info = report.model
    plan = plan_under_budget(info, report.records, budget)
    total = len(info.attention_layers) * info.n_kv_heads
    full = [item for item in plan.kv_heads if item.role == "full"]
    assert len(full) == round(budget * total)
    assert plan.full_fraction == len(full) / total
    best: dict[tuple[int, int], float] = {}
    for record in report.records:
        item, key = record.scores["retrieval"], (record.layer, record.kv_head)
        best[key] = max(best.get(key, -np.inf), item.value if isinstance(item, Measured) else -np.inf)
    kept = {(item.layer, item.kv_head) for item in full}
    assert all(best[a] >= best[b] for a in kept for b in best.keys() - kept)
    roles = KVRoles.from_report(report, budget)
    assert {(info.attention_layers[row], g) for row, g in np.argwhere(roles.full).tolist()} == kept
    given = KVRoles.from_report(report)
    assert given.full.sum() == sum(item.role == "full" for item in report.decode.kv_heads)
    assert given.recent_tokens == report.decode.recent_tokens


def test_bad_input_is_named(scope, needles) -> None:
    with pytest.raises(TaskError, match="prefill: found 'sparse'"):
        answer_scores(scope, needles, lambda i: [()], prefill="sparse")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="no column question_position"):
        answer_scores(scope, needles.remove_columns("question_position"), lambda i: [()])
    with pytest.raises(TaskError, match="equally many"):
        answer_scores(scope, needles, lambda i: [()] * (i + 1))
    with pytest.raises(TaskError, match="no tokens"):
        Prefix(scope, [])
    with pytest.raises(UnsupportedModelError, match="no argument for a key/value cache"):
        Prefix(attnscope.load(backend="toy"), [0])
