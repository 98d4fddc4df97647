"""Laws of sweeps: every way of running fewer tokens, blocks or forwards equals one whole forward for each variant."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from _tiny_models import MODELS, tiny

from attnscope.core.errors import OutputError, SweepError, TaskError, UnknownHeadError, UnknownNameError
from attnscope.core.ids import HeadId
from attnscope.edits.ablate_head import AblateHead
from attnscope.edits.knock_out import KnockOut
from attnscope.edits.uniform_attention import UniformAttention
from attnscope.engine.edited import edited
from attnscope.engine.sweep import shared
from attnscope.engine.sweep.alternatives import Fixed, FromEdit, OtherPrompts, OtherRun, Zero, record
from attnscope.engine.sweep.chunks import chunks
from attnscope.engine.sweep.metrics import METRICS, Accuracy, LogProbability, Metric
from attnscope.engine.sweep.run import Sweep, sweep
from attnscope.engine.sweep.units import MODULES, SITE, Unit, heads_as_units, neuron_counts, units_of

ANSWERS = ["log_probability", "logit_difference", "accuracy", "kl", "probability_difference"]
scopes = cache(tiny)


@cache
def pairs(two_lengths: bool = True) -> Any:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(4):
        tokens = 9 if i < 2 or not two_lengths else 12
        clean = torch.randint(3, 96, (tokens,), generator=generator).tolist()
        corrupt = list(clean)
        corrupt[4], corrupt[6] = (corrupt[4] + 7) % 90 + 3, (corrupt[6] + 11) % 90 + 3
        answer = [11 + i, 50][: 1 + i // 2]
        sets = {"answer_set": [11 + i, 20], "wrong_set": [30, 31]}
        ids = {"input_ids": [1, *clean], "corrupt_ids": [1, *corrupt]}
        rows.append({**ids, "answer_ids": answer, "wrong_ids": [70], **sets})
    return datasets.Dataset.from_list(rows)


def means(scope: Any) -> Fixed:
    generator = torch.Generator().manual_seed(1)
    info, widths = scope.info, neuron_counts(scope)
    values: dict[Any, Any] = {}
    for layer in range(3):
        values["z", layer] = torch.randn(info.n_heads, info.head_dim, generator=generator)
        for site in SITE.values():
            size = widths[layer] if site == "neurons" else info.d_model
            values[site, layer] = torch.randn(size, generator=generator)
    return Fixed(values)


def variants(scope: Any, level: str) -> Any:
    if level == "neuron":
        return [(Unit("neuron", layer, index),) for layer in range(3) for index in (0, 7, 31)]
    if level == "set":
        return [
            (Unit("head", 0, 1), Unit("head", 0, 2), Unit("head", 2, 0)),
            (Unit("mlp", 0), Unit("attention", 1), Unit("head", 2, 3)),
            (Unit("residual", 1), Unit("head", 1, 1)),
            (Unit("neuron", 1, 3), Unit("neuron", 1, 4), Unit("head", 2, 1)),
            units_of(scope, "head"),
        ]
    return level


def same(left: Sweep, right: Sweep, tolerance: float = 2e-5) -> None:
    for metric, values in left.values.items():
        other = right.values[metric]
        assert (np.isnan(values) == np.isnan(other)).all()
        size = max(1.0, float(np.nanmax(np.abs(other))))
        np.testing.assert_allclose(values, other, atol=tolerance * size)
        np.testing.assert_allclose(left.baseline[metric], right.baseline[metric], atol=tolerance * size)
    assert left.drift < tolerance * 50


@pytest.mark.parametrize("positions", ["all", "answer", "each", (3, 6)], ids=str)
@pytest.mark.parametrize("level", [*MODULES, "set"])
@pytest.mark.parametrize("name", MODELS)
def test_stacked_equals_one_forward_for_each_variant(name: str, level: str, positions: Any) -> None:
    scope = scopes(name)
    alternatives = [Zero(), means(scope), OtherRun()] if positions != "each" else [OtherRun()]
    for alternative in alternatives:
        options: dict[str, Any] = {"metrics": ANSWERS, "alternative": alternative, "positions": positions}
        fast = sweep(scope, pairs(), variants(scope, level), **options)
        slow = sweep(scope, pairs(), variants(scope, level), method="plain", **options)
        same(fast, slow)
        assert fast.forwards < slow.forwards
        assert max(np.nanmax(np.abs(fast.effect(metric))) for metric in ANSWERS) > 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_edits_and_other_prompts_as_alternatives(name: str) -> None:
    scope = scopes(name)
    for alternative in (
        FromEdit(UniformAttention, "uniform"),
        FromEdit(lambda heads: KnockOut(keys=(0, 2)), "knockout"),
        OtherPrompts(),
    ):
        for positions in ("all", "answer"):
            options: dict[str, Any] = {"metrics": ANSWERS, "alternative": alternative, "positions": positions}
            fast, slow = (sweep(scope, pairs(), "head", method=m, **options) for m in ("stacked", "plain"))
            same(fast, slow)
        several = [(Unit("head", 0, 1), Unit("head", 2, 1)), (Unit("head", 1, 0), Unit("head", 2, 2))]
        options = {"metrics": ANSWERS, "alternative": alternative}
        fast, slow = (sweep(scope, pairs(), several, method=m, **options) for m in ("stacked", "plain"))
        same(fast, slow)


@pytest.mark.parametrize("name", MODELS)
def test_a_shared_beginning_equals_its_copies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = scopes(name)
    monkeypatch.setattr(shared, "LONG", 1)
    for positions in ("answer", "each"):
        options: dict[str, Any] = {"metrics": ANSWERS, "positions": positions, "alternative": OtherRun()}
        fast, slow = (sweep(scope, pairs(), "head", method=m, **options) for m in ("stacked", "plain"))
        same(fast, slow)


@pytest.mark.parametrize("name", MODELS)
def test_few_rows_a_forward_change_nothing(name: str) -> None:
    """Small batches: forwards begin at later blocks, from the kept residual stream."""
    scope = scopes(name)
    one = sweep(scope, pairs(), "head", metrics=ANSWERS)
    for tokens in (20, 60, 200):
        many = sweep(scope, pairs(), "head", metrics=ANSWERS, batch_tokens=tokens)
        same(many, one)
        assert many.forwards >= one.forwards


@pytest.mark.parametrize("name", MODELS)
def test_zero_equals_the_edit(name: str) -> None:
    scope = scopes(name)
    found = sweep(scope, pairs(False).select(range(2)), "head", metrics="logit_difference")
    ids = torch.tensor(pairs(False)["input_ids"][:2])
    for column, head in enumerate(scope.info.heads):
        with torch.no_grad(), edited(scope, [AblateHead((head,))]):
            logits = scope.model(input_ids=ids).logits[:, -1]
        expected = [float(logits[i, 11 + i] - logits[i, 70]) for i in range(2)]
        np.testing.assert_allclose(found.values["logit_difference"][:, column], expected, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_patching_from_the_same_run_changes_nothing(name: str) -> None:
    scope = scopes(name)
    for level in ("head", "mlp", "residual"):
        found = sweep(scope, pairs(), level, alternative=OtherRun("input_ids"), metrics=ANSWERS, positions="each")  # type: ignore[arg-type]
        for metric in ANSWERS:
            np.testing.assert_allclose(np.nan_to_num(found.effect(metric)), 0, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_patching_all_heads_of_a_block_is_patching_its_attention(name: str) -> None:
    scope = scopes(name)
    heads = [heads_as_units(HeadId(layer, head) for head in range(4)) for layer in range(3)]
    together = sweep(scope, pairs(), heads, alternative=OtherRun(), metrics=ANSWERS)
    whole = sweep(scope, pairs(), "attention", alternative=OtherRun(), metrics=ANSWERS)
    same(together, whole)


@pytest.mark.parametrize("name", MODELS)
def test_patching_the_first_stream_gives_the_other_run(name: str) -> None:
    """Denoising everything recovers the clean run: 100% recovery."""
    scope = scopes(name)
    clean = sweep(scope, pairs(), [(Unit("residual", 0),)], metrics="logit_difference")
    back = sweep(
        scope,
        pairs(),
        [(Unit("residual", 0),)],
        base="corrupt_ids",
        alternative=OtherRun("input_ids"),
        metrics="logit_difference",
    )
    np.testing.assert_allclose(back.values["logit_difference"][:, 0], clean.baseline["logit_difference"], atol=1e-4)


def test_loss_and_kl() -> None:
    scope = scopes("llama")
    fast, slow = (sweep(scope, pairs(), "head", metrics="loss", method=m) for m in ("stacked", "plain"))  # type: ignore[arg-type]
    same(fast, slow)
    ids = torch.tensor([pairs()["input_ids"][0]])
    with torch.no_grad():
        expected = scope.model(input_ids=ids, labels=ids).loss
    assert fast.baseline["loss"][0] == pytest.approx(float(expected), abs=1e-5)
    assert (sweep(scope, pairs(), "head", metrics="kl").values["kl"] > -1e-6).all()


def test_patches_that_cannot_matter_are_not_run() -> None:
    scope = scopes("llama")
    found = sweep(scope, pairs(False), "head", alternative=OtherRun(), metrics=ANSWERS, positions="each")
    assert (found.effect("log_probability")[:, :, :4] == 0).all()
    later = found.effect("log_probability")[:, :, 4:]
    assert (np.abs(later) > 0).any()
    last = [i for i, variant in enumerate(found.variants) if variant[0].layer == 2]
    assert (found.effect("kl")[:, last, :9] == 0).all()
    alike = sweep(scope, pairs(False), "head", alternative=OtherRun("input_ids"), metrics=ANSWERS)
    assert (alike.effect("log_probability") == 0).all()


def test_a_failure_names_the_head_and_keeps_what_was_done(tmp_path: Path) -> None:
    scope, broken = scopes("llama"), [Unit("head", 1, 2)]

    class Breaks(Zero):
        def heads(self, layer: int, call: Any, z: Any) -> Any:
            if active and layer == 1 and any(unit in watched[-1] for unit in broken):
                raise ZeroDivisionError("a broken head")
            return super().heads(layer, call, z)

    class Watched(Breaks):
        name = "zero, watched"

        def bind(self, scope: Any, chunk: Any, units: Any, start: int, implementation: str) -> Any:
            return self

    watched: list[Any] = [broken]
    active = True
    place = tmp_path / "sweep.safetensors"
    chosen = [(Unit("head", 0, 0),), (Unit("head", 0, 1),), (Unit("head", 1, 2),), (Unit("head", 2, 0),)]
    with pytest.raises(SweepError, match=r"L1H2, prompt 0: found ZeroDivisionError: a broken head"):
        sweep(scope, pairs(), chosen, alternative=Watched(), checkpoint=place, batch_tokens=20)
    assert place.exists()
    active = False
    resumed = sweep(scope, pairs(), chosen, alternative=Watched(), checkpoint=place, batch_tokens=20)
    whole = sweep(scope, pairs(), chosen, alternative=Watched(), batch_tokens=20)
    assert resumed.forwards < whole.forwards
    for metric in whole.values:
        np.testing.assert_array_equal(resumed.values[metric], whole.values[metric])
        np.testing.assert_array_equal(resumed.baseline[metric], whole.baseline[metric])


def test_an_interrupted_sweep_goes_on(tmp_path: Path) -> None:
    scope, place = scopes("llama"), tmp_path / "sweep.safetensors"

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"metrics": ANSWERS, "batch_tokens": 60}
    with pytest.raises(KeyboardInterrupt):
        sweep(scope, pairs(), "head", progress=interrupt, checkpoint=place, **options)
    resumed = sweep(scope, pairs(), "head", checkpoint=place, **options)
    whole = sweep(scope, pairs(), "head", **options)
    assert resumed.forwards < whole.forwards
    for metric in ANSWERS:
        np.testing.assert_array_equal(resumed.values[metric], whole.values[metric])
    with pytest.raises(OutputError, match="another"):
        sweep(scope, pairs(), "mlp", checkpoint=place, **options)


def test_the_model_is_left_as_it_was() -> None:
    scope = scopes("llama")
    ids = torch.tensor([pairs()["input_ids"][0]])
    before = scope.model(input_ids=ids).logits
    sweep(scope, pairs(), "head", metrics="logit_difference", batch_tokens=40, positions="each")
    assert torch.equal(scope.model(input_ids=ids).logits, before)
    assert all("forward" not in module.__dict__ for module in scope.model.modules())


def test_the_order_of_metrics_changes_nothing() -> None:
    """Answers of two tokens: the second one follows the first also where the first metric reads one token alone."""
    scope = scopes("llama")
    found = [
        sweep(scope, pairs(), "mlp", metrics=names)
        for names in (ANSWERS, ANSWERS[::-1], ["logit_difference", "log_probability"])
    ]
    for metric in ("logit_difference", "log_probability"):
        for other in found[1:]:
            np.testing.assert_array_equal(found[0].values[metric], other.values[metric])


def test_a_metric_of_your_own() -> None:
    class TopProbability(Metric):
        name, units = "top_probability", "1"

        def __call__(self, logits: Any, readout: Any) -> Any:
            return logits.softmax(-1).amax(-1)[..., 0]

    found = sweep(scopes("llama"), pairs(), "mlp", metrics=[TopProbability(), LogProbability()])
    assert ((found.values["top_probability"] > 0) & (found.values["top_probability"] <= 1)).all()


def test_bad_sweeps_say_what_is_wrong() -> None:
    scope = scopes("llama")
    plain = pairs().remove_columns(["wrong_ids", "corrupt_ids"])
    with pytest.raises(TaskError, match="also wrong_ids"):
        sweep(scope, plain, "head", metrics="logit_difference")
    with pytest.raises(TaskError, match="a column 'corrupt_ids'"):
        sweep(scope, plain, "head", alternative=OtherRun())
    with pytest.raises(UnknownNameError, match="one of logit_difference"):
        sweep(scope, plain, "head", metrics="acuracy")
    with pytest.raises(UnknownHeadError, match="L9H0"):
        sweep(scope, plain, [(Unit("head", 9, 0),)])
    with pytest.raises(UnknownHeadError, match="L0N4000"):
        sweep(scope, plain, [(Unit("neuron", 0, 4000),)])
    with pytest.raises(TaskError, match="units of a sweep"):
        sweep(scope, plain, "heads")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="'stacked' or 'plain'"):
        sweep(scope, plain, method="fast")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="positions of a sweep in prompt 0"):
        sweep(scope, plain, positions=(40,))
    uneven = pairs().map(lambda row: {"corrupt_ids": row["corrupt_ids"][1:]})
    with pytest.raises(TaskError, match="equally many in both"):
        sweep(scope, uneven, "head", alternative=OtherRun())
    with pytest.raises(TaskError, match="all of answers or all of whole texts"):
        sweep(scope, plain, metrics=["loss", "accuracy"])
    with pytest.raises(TaskError, match="no other prompt"):
        sweep(scope, plain.select([0]), alternative=OtherPrompts())
    with pytest.raises(TaskError, match="no value for"):
        sweep(scope, plain, alternative=Fixed({}))
    with pytest.raises(TaskError, match="an edit of heads"):
        sweep(scope, plain, "mlp", alternative=FromEdit(UniformAttention))


def test_every_metric_has_a_name_and_units() -> None:
    assert all(kind.name == name and kind.units for name, kind in METRICS.items())
    scope = scopes("llama")
    part = chunks(pairs(), [Accuracy()], "all", "input_ids", context_length=64, most=4, device=torch.device("cpu"))
    assert [chunk.prompts for chunk in part] == [(0, 1), (2, 3)]
    kept = record(scope, part[0], part[0].ids, units_of(scope, "head"), 3)
    assert kept.values["z", 0].shape == (2, 4, 7, 8)
