"""Retrieval: the pieces against plain computations, and what cannot be said is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import attnscope
from attnscope.analyses.retrieval import stability, top_heads
from attnscope.collectors.passage_mass import PassageMass
from attnscope.core.errors import TaskError, UnknownHeadError
from attnscope.core.ids import HeadId
from attnscope.core.report import Missing
from attnscope.core.sink_report import Estimate
from attnscope.edits.uniform_attention import UniformAttention
from attnscope.engine.ablation_curve import ablation_curve
from attnscope.engine.accuracy import token_accuracy
from attnscope.engine.collect import collect
from attnscope.engine.edited import edited
from attnscope.engine.patterns import pattern_mass, vertical_slash
from attnscope.engine.qrhead import qr_scores
from attnscope.engine.retrieval_decoding import decoded_retrieval, rouge1_recall
from attnscope.reports.retrieval import agreements, cells, head_rows, ranked, settled
from attnscope.tasks._answers import with_answers
from attnscope.tasks.needle_grid import NeedleGrid
from attnscope.tasks.passages import Passages
from attnscope.tasks.text import Text


@pytest.fixture(scope="module")
def pocket() -> Any:
    return attnscope.load(device="cpu")


def eager(model: Any, ids: list[int]) -> np.ndarray:
    """Attention of every layer `[L, H, T, T]`, and the greedy next tokens, by transformers' own eager code."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    return torch.stack(out.attentions)[:, 0].numpy()


def test_decoded_scores_are_those_of_a_plain_dense_computation(pocket: Any) -> None:
    prompts = NeedleGrid(lengths=(200,), depths=(0.2, 0.8), repeats=1).build(pocket.tokenizer)
    steps = 7
    found = decoded_retrieval(pocket, prompts, steps=steps)
    for i, row in enumerate(prompts):
        ids, score = list(row["input_ids"]), np.zeros((8, 8))
        for _ in range(steps):
            with torch.no_grad():
                token = int(pocket.model(torch.tensor([ids])).logits[0, -1].argmax())
            looked = eager(pocket.model, ids)[:, :, -1].argmax(-1)
            for layer, head in np.ndindex(looked.shape):
                at = int(looked[layer, head])
                score[layer, head] += at in row["source_positions"] and row["input_ids"][at] == token
            ids.append(token)
        np.testing.assert_allclose(found.retrieval_decoded[i], score / len(row["answer_ids"]), atol=1e-6)
        assert found.answer_recall[i] == 1


def test_decoding_and_teacher_forcing_agree_where_the_model_answers(pocket: Any) -> None:
    prompts = NeedleGrid(lengths=(300,), depths=(0.0, 0.5, 1.0), repeats=1, others=1).build(pocket.tokenizer)
    forced = collect(pocket, with_answers(prompts), ["retrieval"]).retrieval
    decoded = decoded_retrieval(pocket, prompts, steps=5).retrieval_decoded
    np.testing.assert_allclose(decoded, forced, atol=1e-6)
    assert float(decoded.max()) == 1


def test_an_unanswered_needle_has_no_score(pocket: Any) -> None:
    prompts = NeedleGrid(lengths=(200,), depths=(0.5,), repeats=1).build(pocket.tokenizer)
    wrong = Dataset.from_list([{**prompts[0], "answer": "something else"}])
    found = decoded_retrieval(pocket, wrong, steps=6)
    assert found.retrieval_decoded.isnull().all()
    assert found.answer_recall.values.tolist() == [0.0]


def test_generation_stops_at_the_models_context(pocket: Any) -> None:
    prompts = (
        NeedleGrid(lengths=(8192,), depths=(0.5,), repeats=1)
        .build(pocket.tokenizer)
        .select_columns(["input_ids", "source_positions", "answer"])
    )
    cut = prompts[0]
    full = Dataset.from_list([{**cut, "input_ids": (cut["input_ids"] * 2)[:8191]}])
    assert decoded_retrieval(pocket, full, steps=5).sizes["prompt"] == 1


@pytest.mark.parametrize(
    ("answer", "text", "recall"),
    [("a b c", "c, b! and A.", 1), ("42", "142", 0), ("a a", "a", 0.5), ("", "x", 0), ("49526", "49526.“The", 1)],
)
def test_recall_counts_words(answer: str, text: str, recall: float) -> None:
    assert rouge1_recall(answer, text) == recall


def test_qr_score_is_the_mass_on_the_gold_passage_minus_the_null_questions(pocket: Any) -> None:
    task = Passages(n=3, passages=3, length=180)
    prompts, null = task.build(pocket.tokenizer), task.null(pocket.tokenizer)
    found = qr_scores(pocket, prompts, null).qr_score
    for i in range(3):
        means = []
        for row in (prompts[i], null[i]):
            weights, (low, high) = eager(pocket.model, row["input_ids"]), row["gold_span"]
            means.append(weights[:, :, row["question_positions"], low:high].sum(-1).mean(-1))
        np.testing.assert_allclose(found[i], means[0] - means[1], atol=2e-5)
    with pytest.raises(TaskError, match="null questions"):
        qr_scores(pocket, prompts, null.select([0]))


def test_passages_beyond_the_prompt_are_refused(pocket: Any) -> None:
    rows = Dataset.from_dict({"input_ids": [[0, 5, 7]], "gold_span": [[1, 9]], "question_positions": [[2]]})
    with pytest.raises(TaskError, match="within the prompt"):
        collect(pocket, rows, [PassageMass()])


def test_razor_induction_sums_over_all_earlier_copies(pocket: Any) -> None:
    from attnscope.tasks.repeats import Repeats

    prompts = Repeats(n=1, period=20, copies=4).build(pocket.tokenizer)
    found = collect(pocket, prompts, ["echo", "razor_induction", "induction"])
    weights, ids = eager(pocket.model, prompts[0]["input_ids"]), prompts[0]["input_ids"]
    sums: dict[str, list[np.ndarray]] = {"echo": [], "razor_induction": []}
    for i in range(len(ids)):
        earlier = [j for j in range(1, i) if ids[j] == ids[i]]
        if earlier:
            sums["echo"].append(weights[:, :, i, earlier].sum(-1))
            sums["razor_induction"].append(weights[:, :, i, [j + 1 for j in earlier]].sum(-1))
    for name, rows in sums.items():
        np.testing.assert_allclose(found[name][0], np.mean(rows, axis=0), atol=2e-5, err_msg=name)
    assert (found.razor_induction >= found.induction - 1e-6).all()


def test_uniform_attention_is_the_mean_of_what_a_head_sees(pocket: Any) -> None:
    from attnscope.engine.batches import make_batch

    ids, seen = Dataset.from_dict({"input_ids": [[0, 9, 8, 7, 6]]}), {}

    def listen(call: Any, result: Any) -> None:
        seen[call.layer] = (call.v[0].clone(), result.output[0].clone())

    batch = make_batch(ids, [0], pocket.device)
    with torch.no_grad(), edited(pocket, [UniformAttention((HeadId(2, 5),))], batch, listen=listen):
        pocket.run(batch)
    v, z = seen[2]
    means = v[2].cumsum(0) / torch.arange(1, 6)[:, None]
    torch.testing.assert_close(z[5], means, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(z[4], means, atol=1e-3)
    with pytest.raises(UnknownHeadError, match="no heads"):
        UniformAttention(())


def test_pattern_mass_against_a_plain_loop(pocket: Any) -> None:
    prompts = Text(n=2, length=160).build(pocket.tokenizer)
    found = vertical_slash(pocket, prompts, budget=0.1, splits=(0.25, 0.75))
    weights = eager(pocket.model, prompts[1]["input_ids"])
    for split, (vertical, slash) in enumerate([(4, 12), (12, 4)]):
        for layer, head in ((0, 0), (3, 4), (7, 7)):
            tile = weights[layer, head, -64:]
            columns = np.argsort(-tile.sum(0))[:vertical]
            sums = np.zeros(160)
            for i, j in np.ndindex(tile.shape):
                if j <= 96 + i:
                    sums[96 + i - j] += tile[i, j]
            lines = set(np.argsort(-sums)[:slash].tolist())
            inside = sum(
                tile[i, j] for i, j in np.ndindex(tile.shape) if j <= 96 + i and (j in columns or 96 + i - j in lines)
            )
            got = float(found.pattern_mass[1, layer, head, split])
            assert got == pytest.approx(inside / 64, abs=1e-4)
    best = found.pattern_mass.mean("prompt").argmax("split")
    assert (found.vertical_size == xr_where(best, 4, 12)).all()
    assert (found.vertical_size + found.slash_size == 16).all()
    with pytest.raises(TaskError, match="one length"):
        vertical_slash(pocket, Dataset.from_dict({"input_ids": [[0] * 130, [0] * 140]}))


def xr_where(best: Any, first: int, second: int) -> Any:
    return (best == 0) * first + (best == 1) * second


def test_columns_and_diagonals_that_hold_everything() -> None:
    columns = torch.zeros(1, 4, 10)
    columns[:, :, 3] = 1
    assert pattern_mass(columns, [(1, 1)]).item() == 1
    mixed = torch.zeros(1, 4, 10)
    mixed[0, :, 0] = 0.5
    mixed[0, torch.arange(4), torch.arange(5, 9)] = 0.5
    assert pattern_mass(mixed, [(1, 1), (2, 0), (0, 2)]).tolist()[0] == pytest.approx([1, 0.625, 0.625], abs=1e-6)


def test_the_curve_ablates_the_ranking_and_controls_leave_it_alone() -> None:
    info = attnscope.load(backend="toy").info
    ranking, calls = info.heads[:3], []

    def measure(edits: Any) -> np.ndarray:
        calls.append(set(edits[0].heads))
        return np.array([1.0 - 0.2 * len(set(edits[0].heads) & set(ranking))] * 2)

    excluded = [*ranking, info.heads[4]]
    steps = ablation_curve(info, ranking, measure, excluded=excluded, counts=(1, 2, 5), modes=("zero",), draws=3)
    assert [len(step.heads) for step in steps] == [1, 2]
    assert [step.ablated[0] for step in steps] == pytest.approx([0.8, 0.6])
    assert all((step.controls == 1).all() and step.controls.shape == (3, 2) for step in steps)
    controls = [heads for heads in calls if not heads <= set(ranking)]
    assert [len(heads) for heads in controls] == [1, 1, 1, 2, 2, 2]
    assert not any(heads & set(excluded) for heads in controls)


def test_top_heads_and_stability() -> None:
    scores = np.array([[0.1, 0.9, np.nan], [0.9, 0.0, 0.5]])
    assert top_heads(scores, 10) == [(0, 1), (1, 0), (1, 2), (0, 0), (1, 1)]
    rng = np.random.default_rng(0)
    true = np.linspace(0, 1, 40).reshape(5, 8)
    noisy = stability(true + 0.5 * rng.standard_normal((60, 5, 8)), k=8)
    sure = stability(true + 0.01 * rng.standard_normal((60, 5, 8)), k=8)
    assert noisy is not None
    assert sure is not None
    assert sure.settled < noisy.settled <= 60
    assert noisy.overlap[-1] == sure.overlap[-1] == 1
    assert noisy.overlap[0] < noisy.overlap[20]
    assert all(low <= mean for low, mean in zip(noisy.low, noisy.overlap, strict=True))
    assert stability(np.full((3, 2, 2), np.nan)) is None
    assert stability(np.ones((1, 2, 2))) is None


def test_a_report_without_answers_gives_reasons_not_zeros(pocket: Any) -> None:
    rows = head_rows(pocket.info, {}, {"retrieval": "the model answered 0 of 4 needles", "qr_score": "why"})
    assert rows[0].retrieval == Missing(reason="the model answered 0 of 4 needles")
    assert rows[0].qr_score == Missing(reason="why")
    assert rows[0].vertical_size is None
    assert ranked(pocket.info, np.zeros((0, 0, 0))) == []
    assert settled(np.zeros((0, 0, 0))) == Missing(reason="fewer than two needles were answered")
    assert agreements(rows, 4) == ()
    assert settled(np.zeros((3, 2, 4))) == Missing(reason="no head scored on any needle")
    one = np.zeros((5, 2, 4))
    one[:, 1, 2] = 1
    assert settled(one).k == 1  # type: ignore[union-attr]


def test_cells_are_means_over_their_prompts() -> None:
    found = cells([100, 100, 200], [0.0, 0.0, 1.0], np.array([True, False, True]))
    assert [(c.length, c.depth, c.accuracy.value, c.accuracy.n) for c in found] == [
        (100, 0.0, 0.5, 2),
        (200, 1.0, 1.0, 1),
    ]
    assert isinstance(found[0].accuracy, Estimate)


def test_accuracy_needs_every_answer_token(pocket: Any) -> None:
    prompts = with_answers(NeedleGrid(lengths=(200,), depths=(0.5,), repeats=1).build(pocket.tokenizer))
    wrong = Dataset.from_list([{**prompts[0], "target_ids": [*prompts[0]["target_ids"][:-1], 7]}])
    assert token_accuracy(pocket, wrong)[0] == pytest.approx(1 - 1 / len(prompts[0]["target_ids"]))
