"""Sinks on a CUDA device: the same sinks, writers, edits and losses as on the CPU, and reduced precision that holds."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import attnscope
from attnscope.core.ids import HeadId
from attnscope.edits.calibrate_sinks import CalibrateSinks
from attnscope.edits.knock_out_sinks import KnockOutSinks
from attnscope.edits.norm_dimensions import NormDimensions
from attnscope.edits.rescale_write import RescaleWrite
from attnscope.edits.stream_window import StreamWindow
from attnscope.engine.act import act_sinks
from attnscope.engine.loss import next_token_loss
from attnscope.engine.quantise import w4a4
from attnscope.engine.sink_heads import sink_shares
from attnscope.engine.sink_trace import trace
from attnscope.models.toy import Toy
from attnscope.sink_workflow import SinkPlan, sink_report
from attnscope.tasks.text import Text
from attnscope_kernels.testing import forbid_square

if TYPE_CHECKING:
    from attnscope.edits._base import Edit
    from attnscope.models._base import Scope

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

HEADS = (HeadId(3, 1), HeadId(7, 0), HeadId(7, 1))
EDITS = {
    "calibrate": CalibrateSinks(dict.fromkeys(HEADS, (0, 3)), beta=0.3),
    "knock_out": KnockOutSinks(dict.fromkeys(HEADS, (0,))),
    "window": StreamWindow(HEADS, sinks=2, recent=16),
    "rescale": RescaleWrite(1, positions={0: (0,), 1: (0,)}, factor=0.25),
    "neurons": RescaleWrite(1, positions={0: (0,), 1: (0,)}, neurons=(810,)),
    "dimensions": NormDimensions((43,), "zero"),
    "denominator": NormDimensions((43,), "denom_zero"),
}


@lru_cache(maxsize=4)
def pocket(device: str, dtype: str = "float32") -> Scope:
    return attnscope.load(device=device, dtype=dtype)


@lru_cache(maxsize=1)
def prompts() -> Any:
    return Text(n=2, length=200).build(pocket("cpu").tokenizer)


@pytest.mark.parametrize("implementation", ["triton", "tiled"])
def test_trace(implementation: str) -> None:
    there = trace(pocket("cuda"), prompts(), implementation=implementation)
    here = trace(pocket("cpu"), prompts(), implementation="reference")
    assert implementation in there.attrs["implementation"]
    for name, tolerance in (("residual_norm_at", 2e-3), ("anchor_cosine", 2e-3), ("received_share", 1e-3)):
        np.testing.assert_allclose(there[name], here[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_sink_shares() -> None:
    groups = {"primary": {0: [0], 1: [0]}, "other": {0: [7]}}
    there, here = (sink_shares(pocket(device), prompts(), groups) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there.sink_attention, here.sink_attention, atol=1e-3)
    np.testing.assert_allclose(there.dormant, here.dormant, atol=0.02)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("implementation", ["triton", "tiled"])
def test_edits(name: str, implementation: str) -> None:
    there = next_token_loss(pocket("cuda"), prompts(), edits=[EDITS[name]], implementation=implementation)
    here = next_token_loss(pocket("cpu"), prompts(), edits=[EDITS[name]], implementation="reference")
    plain = next_token_loss(pocket("cpu"), prompts())
    np.testing.assert_allclose(there, here, atol=2e-3)
    assert not np.allclose(here, plain, atol=1e-6), "the edit does nothing, so this compares nothing"


def test_act_finds_the_same_sinks() -> None:
    there, here = (act_sinks(pocket(device), prompts()) for device in ("cuda", "cpu"))
    found = [sum(len(p) for p in one.values()) for one in here]
    same = [
        len({(h, p) for h, ps in a.items() for p in ps} & {(h, p) for h, ps in b.items() for p in ps})
        for a, b in zip(there, here, strict=True)
    ]
    assert min(found) > 0
    assert all(s >= 0.97 * n for s, n in zip(same, found, strict=True))


def test_a_report_says_the_same_as_on_the_cpu() -> None:
    plan = SinkPlan(draws=2)
    there, here = (sink_report(pocket(device), plan, prompts=prompts()) for device in ("cuda", "cpu"))
    assert [(s.prompt, s.position, s.kind, s.level) for s in there.sinks] == [
        (s.prompt, s.position, s.kind, s.level) for s in here.sinks
    ]
    assert [s.residual.writer.neurons for s in there.of_kind("primary")] == [  # type: ignore[union-attr]
        s.residual.writer.neurons  # type: ignore[union-attr]
        for s in here.of_kind("primary")
    ]
    a, b = there.residual_sinks, here.residual_sinks
    assert a.kind == b.kind == "found"
    assert [d.dimension for d in a.dimensions] == [d.dimension for d in b.dimensions] == [43]
    for mine, theirs in zip(a.interventions, b.interventions, strict=True):
        assert mine.loss_change.value == pytest.approx(theirs.loss_change.value, abs=5e-3)  # type: ignore[union-attr]
    assert a.quantisation is not None
    assert b.quantisation is not None
    assert a.quantisation.quantised == pytest.approx(b.quantisation.quantised, abs=0.02)
    for one, other in zip(there.writes, here.writes, strict=True):
        assert [p.lifetime for p in one.curve] == pytest.approx([p.lifetime for p in other.curve], abs=0.5)
        assert one.loss_change.value == pytest.approx(other.loss_change.value, abs=3e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_finds_the_same_primary_sinks(dtype: str) -> None:
    found = sink_report(pocket("cuda", dtype), SinkPlan(draws=2), prompts=prompts())
    assert [(s.prompt, s.position) for s in found.of_kind("primary")] == [(0, 0), (1, 0)]
    assert [d.dimension for d in found.residual_sinks.dimensions] == [43]  # type: ignore[union-attr]


def test_quantisation_leaves_the_weights_as_they_were() -> None:
    scope = pocket("cuda")
    before = {name: value.clone() for name, value in scope.model.state_dict().items()}  # type: ignore[attr-defined]
    with w4a4(scope, (43,)):
        changed = next_token_loss(scope, prompts())
    after = scope.model.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (changed > next_token_loss(scope, prompts())).all()


LONG = 32749
"""Tokens, a prime."""
LONG_EDITS = (StreamWindow(sinks=4, recent=1020), CalibrateSinks({0: (0,)}), KnockOutSinks({1: (0,)}))


@pytest.mark.parametrize(
    "edit", [StreamWindow(sinks=4, recent=1020), CalibrateSinks({0: (0,)}), KnockOutSinks({1: (0,)})]
)
def test_edits_of_a_long_prompt_form_no_square(edit: Edit) -> None:
    scope = Toy(head_dim=64, device="cuda", dtype=torch.bfloat16)
    ids = Dataset.from_dict({"input_ids": [[1 + i % 50 for i in range(LONG)]]})
    torch.cuda.reset_peak_memory_stats()
    with forbid_square(LONG):
        changed = next_token_loss(scope, ids, edits=[edit])
    assert torch.cuda.max_memory_allocated() < 2**30
    assert changed[0] != next_token_loss(scope, ids)[0]
