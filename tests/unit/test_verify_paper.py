"""Published numbers are complete, and verdicts are right at the edges of their tolerances."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from attnscope.collectors.sink_rate import SinkRate
from attnscope.core.errors import AttnscopeError, OutputError, UnknownNameError
from attnscope.core.paths import data_path
from attnscope.core.published import CLAIMS, Published, model_name, read_published, rows_for
from attnscope.core.report import Missing
from attnscope.core.sink_report import (
    Estimate,
    InterventionEffect,
    NormRead,
    ResidualSinkDimension,
    ResidualSinks,
)
from attnscope.core.track import silent
from attnscope.engine.collect import collect
from attnscope.models._loading import load
from attnscope.reports.comparison import compare
from attnscope.reports.published_metrics import residual_values
from attnscope.tasks.random_tokens import RandomTokens
from attnscope.tasks.text import Text
from attnscope.verify_measures import VerifyPlan, sink_rates, without_bos
from attnscope.verify_paper import check_comparison, verify_paper


def row(
    value: Any = 40.0, relative: float = 0.0, absolute: float = 0.0, metric: str = "score", **more: Any
) -> Published:
    return Published.model_validate(
        {
            "claim": "residual-sinks",
            "models": ("Planted-1B",),
            "metric": metric,
            "value": value,
            "units": "ratio",
            "source": CLAIMS[more.get("claim", "residual-sinks")],
            "origin": "code",
            "protocol": {"T": 64},
            "tolerance": {"relative": relative, "absolute": absolute, "reason": "another text"},
            **more,
        }
    )


def test_every_published_row_is_complete() -> None:
    rows = read_published()
    assert {r.claim for r in rows} == set(CLAIMS)
    assert len({(r.metric, name) for r in rows for name in r.models}) == sum(len(r.models) for r in rows)
    for r in rows:
        assert r.source == CLAIMS[r.claim]
        if isinstance(r.value, float):
            assert r.tolerance.allowed(r.value) > 0, f"{r.metric} of {r.models[0]} could never be reproduced"


def test_the_published_numbers() -> None:
    def values(claim: str, model: str) -> dict[str, Any]:
        return {r.metric: r.value for r in rows_for(read_published(), claim, model)}

    rates = {m: list(values("sink-rate", m).values()) for m in ("gpt2-xl", "Mistral-7B", "Llama-2-7b-hf")}
    assert rates == {
        "gpt2-xl": [77.0, 70.29, 62.28],
        "Mistral-7B": [97.49, 75.21, 0.0],
        "Llama-2-7b-hf": [92.47, 90.13, 0.0],
    }
    qwen = values("secondary-sinks", "Qwen/Qwen3-4B-Base")
    assert (qwen["primary_first_layer"], qwen["primary_lifetime"]) == (6, 29)
    assert (qwen["secondary_first_layer"], qwen["secondary_lifetime"], qwen["layers"]) == (16, 18, 36)
    distilled = values("secondary-sinks", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B")
    assert distilled["secondary_lifetime"] == (22, 23, 24)
    assert distilled["secondary_token_share"] == pytest.approx(162 / 270)
    assert values("residual-sinks", "Qwen3-0.6B-Base")["mlp_weight"] == 2.8e-5


@pytest.mark.parametrize("field", ["claim", "models", "metric", "value", "units", "source", "origin", "protocol"])
def test_an_incomplete_row_is_refused(tmp_path: Path, field: str) -> None:
    shipped = json.loads(data_path("published/sinks.json").read_text())
    del shipped["rows"][3][field]
    (tmp_path / "rows.json").write_text(json.dumps(shipped))
    with pytest.raises(AttnscopeError, match=r"rows\.json.*complete rows"):
        read_published(tmp_path / "rows.json")


def test_contradictory_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"comes from 2601\.22966"):
        row(source="2410.10781")
    with pytest.raises(ValueError, match="compared exactly"):
        row(value=35, relative=0.1)


def test_models_are_known_by_name_not_by_resemblance() -> None:
    rows = read_published()
    for name in ("gpt2-xl", "openai-community/gpt2-xl", "/weights/GPT2-XL/", "h/models--openai--gpt2-xl/snapshots/0a"):
        assert len(rows_for(rows, "sink-rate", name)) == 3, name
    for name in ("gpt2", "gpt2-xl-finetuned", "Llama-2-7b-chat-hf", "gpt2-xl/checkpoints"):
        assert rows_for(rows, "sink-rate", name) == (), name
    assert model_name("") == ""


@pytest.mark.parametrize(
    ("published", "measured", "verdict"),
    [
        (row(40.0, relative=0.1), 44.0, "reproduced"),
        (row(40.0, relative=0.1), 36.0, "reproduced"),
        (row(40.0, relative=0.1), 44.001, "not reproduced"),
        (row(40.0, relative=0.1), 35.999, "not reproduced"),
        (row(0.0, absolute=3.0), 3.0, "reproduced"),
        (row(0.0, absolute=3.0), 3.001, "not reproduced"),
        (row(40.0, relative=0.1, absolute=5.0), 45.0, "reproduced"),
        (row(35), 35, "reproduced"),
        (row(35), 36, "not reproduced"),
        (row((22, 23, 24)), 24, "reproduced"),
        (row((22, 23, 24)), 25, "not reproduced"),
        (row(35), Missing(reason="no norm"), "not measured (no norm)"),
    ],
)
def test_verdicts_at_the_edges(published: Published, measured: Any, verdict: str) -> None:
    (compared,) = compare([published], {"score": measured})
    assert compared.verdict == verdict
    assert compared.published == published.value


def test_differences_and_what_is_not_published() -> None:
    first, second, third = compare([row((22, 24))], {"score": 26, "other": 1.5, "absent": Missing(reason="no text")})
    assert first.difference == 2
    assert (second.verdict, second.published, second.difference) == ("nothing published", None, None)
    assert third.verdict == "not measured (no text)"


def residual(dimensions: int = 1) -> ResidualSinks:
    def read(name: str, layer: int, argmax: int, score: float, weight: float) -> NormRead:
        more = {"argmax_hit": 0.9, "peak": 9, "r": 0.5, "denominator": 1.5, "direct": 0, "rms": 1, "bound": 2}
        return NormRead(read=name, layer=layer, score=score, argmax=argmax, weight=weight, **more)

    change = {"mean": 0.05, "zero": math.log(2.27)}
    return ResidualSinks(
        dimensions=(ResidualSinkDimension(dimension=7, score=30, reads=3, mean_abs=9, writer="mlp 0", weight=0.0),)
        * dimensions,
        reads=(
            read("attention", 0, 7, 10, 0.5),
            read("mlp", 0, 7, 30, 0.01),
            read("attention", 1, 3, 20, 0.5),
            read("mlp", 1, 7, 40, 0.03),
            read("final", 2, 3, 9000, 0.9),
        ),
        massive=(),
        massive_floor=100,
        massive_ratio=1000,
        logits_direct=None,
        interventions=tuple(
            InterventionEffect(intervention=name, loss_change=Estimate(value=value, n=4), control_changes=())  # type: ignore[arg-type]
            for name, value in change.items()
        ),
        quantisation=None,
    )


def test_residual_sinks_in_published_terms() -> None:
    values = residual_values(residual())
    assert (values["dimension"], values["reads"], values["norm_reads"]) == (7, 3, 4)
    assert values["score"] == 25  # the final norm is left out
    assert values["mlp_weight"] == pytest.approx(0.02)
    assert values["perplexity_mean"] == pytest.approx(5.127, abs=1e-3)
    assert values["perplexity_zero"] == pytest.approx(127)
    huge = residual().interventions[0].model_copy(update={"loss_change": Estimate(value=1e4, n=4)})
    overflown = residual_values(residual().model_copy(update={"interventions": (huge,)}))
    assert overflown["perplexity_mean"] == Missing(reason="the perplexity overflows")
    assert values["perplexity_direct_zero"] == Missing(reason="not tested")


def test_what_is_absent_is_missing() -> None:
    none = residual_values(residual(dimensions=0).model_copy(update={"interventions": ()}))
    assert none["mlp_weight"] == none["perplexity_zero"] == Missing(reason="no residual sink dimension was found")
    absent = residual_values(Missing(reason="no norm"))
    assert set(absent) == set(none)
    assert set(absent.values()) == {Missing(reason="no norm")}
    assert {r.metric for r in read_published() if r.claim == "residual-sinks"} <= set(absent)


def test_prompts_without_bos_keep_their_length() -> None:
    tokenizer = load(device="cpu").tokenizer
    with_, without = Text(n=3, length=64).build(tokenizer), without_bos(Text(n=3, length=64), tokenizer)
    assert {len(ids) for ids in without["input_ids"]} == {64}
    assert without["input_ids"][0][:63] == with_["input_ids"][0][1:]
    random = without_bos(RandomTokens(n=50, length=4, vocab_size=9), tokenizer)
    assert all(tokenizer.bos_token_id not in ids for ids in random["input_ids"])


def test_sink_rates_are_the_collector_s(planted_folder: Path, planted_text: Path) -> None:
    scope = load(str(planted_folder), device="cpu")
    found = sink_rates(scope, VerifyPlan(str(planted_text), prompts=5), silent)

    def rate(prompts: Dataset) -> float:
        return float(collect(scope, prompts, [SinkRate()]).sink_rate.mean())

    assert found.values["sink_rate_natural"] == rate(Text(str(planted_text), n=5, length=64).build(scope.tokenizer))
    random = RandomTokens(n=5, length=65, vocab_size=scope.info.vocab_size).build(scope.tokenizer)["input_ids"]
    assert found.values["sink_rate_random"] == rate(Dataset.from_dict({"input_ids": [ids[1:] for ids in random]}))
    repeated = Dataset.from_dict({"input_ids": [[ids[1]] * 64 for ids in random]})
    assert found.values["sink_rate_repeated"] == rate(repeated)
    assert found.values["sink_rate_natural"] > 0


def test_short_text_and_no_tokenizer_are_missing_not_zero(planted_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("w1 w2 w3 w4")
    scope = load(str(planted_folder), device="cpu")
    found = sink_rates(scope, VerifyPlan(str(tmp_path / "short.txt"), prompts=2), silent)
    assert found.values["sink_rate_natural"] == Missing(reason="no prompt has 64 tokens")
    assert found.notes == ("The text gives 1 of 2 prompts.",)
    bare = sink_rates(load(backend="toy"), VerifyPlan(prompts=2, context=16), silent)
    assert bare.values["sink_rate_natural"] == Missing(reason="the model has no tokenizer")
    assert isinstance(bare.values["sink_rate_random"], float)


def test_an_unknown_claim_lists_the_claims() -> None:
    with pytest.raises(UnknownNameError, match=r"'sinks'.*secondary-sinks.*sink-rate.*residual-sinks"):
        verify_paper("sinks")


def test_only_comparisons_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"format": "mine"}')
    for path in (tmp_path, tmp_path / "other.json", Path("/proc/attnscope/x.json")):
        with pytest.raises(OutputError):
            check_comparison(path)
    (tmp_path / "earlier.json").write_text('{"format": "attnscope-verification"}')
    assert check_comparison(tmp_path / "earlier.json") == tmp_path / "earlier.json"
    assert check_comparison(tmp_path / "new" / "a.json").name == "a.json"
