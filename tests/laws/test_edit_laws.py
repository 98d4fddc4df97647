"""Laws of edits, over every registered one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields

import datasets
import pytest
import torch

import attnscope
from attnscope.core.batch import Batch
from attnscope.core.errors import TaskError, UnknownHeadError
from attnscope.core.ids import HeadId
from attnscope.edits import edits
from attnscope.edits._base import Edit
from attnscope.edits._recording import Recording
from attnscope.edits._records import edit_from_record, tensors_of
from attnscope.edits.ablate_head import AblateHead
from attnscope.edits.calibrate_sinks import CalibrateSinks
from attnscope.edits.edit_residual import EditResidual
from attnscope.edits.knock_out import KnockOut
from attnscope.edits.knock_out_sinks import KnockOutSinks
from attnscope.edits.norm_dimensions import NormDimensions
from attnscope.edits.patch_head import PatchHead
from attnscope.edits.project_out import ProjectOut
from attnscope.edits.resample_head import ResampleHead
from attnscope.edits.rescale_write import RescaleWrite
from attnscope.edits.scale_head import ScaleHead
from attnscope.edits.static_attention import StaticAttention
from attnscope.edits.steer import Steer
from attnscope.edits.stream_window import StreamWindow
from attnscope.edits.uniform_attention import UniformAttention
from attnscope.engine.ablations import ablate_with_control, random_others
from attnscope.engine.batches import make_batch
from attnscope.engine.edited import edited as attached
from attnscope_kernels import AttentionCall, attend

SCOPE = attnscope.load(backend="toy")
POCKET = attnscope.load(device="cpu")
PROMPTS = datasets.Dataset.from_dict({"input_ids": [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]]})
HEADS = (HeadId(0, 1), HeadId(1, 3))
EDGES = tuple(range(33))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


SOURCE = Recording(
    "z", {0: random(3, 10, 1, 64), 1: random(3, 10, 1, 64)}, torch.arange(10).expand(3, 10).contiguous(), HEADS
)
EXAMPLES: dict[str, Edit] = {
    "ablate_head": AblateHead(HEADS),
    "scale_head": ScaleHead(HEADS, 0.5),
    "knock_out": KnockOut(keys=(0, 2), layers=(1,), heads=(0,)),
    "knock_out_sinks": KnockOutSinks({1: (0, 2)}, (HeadId(1, 0),)),
    "calibrate_sinks": CalibrateSinks({HeadId(0, 1): (1,), HeadId(1, 3): (0, 2)}),
    "stream_window": StreamWindow(HEADS, sinks=1, recent=3),
    "uniform_attention": UniformAttention(HEADS),
    "norm_dimensions": NormDimensions((43,), "zero"),
    "rescale_write": RescaleWrite(1, positions={0: (0,), 1: (0, 2)}),
    "patch_head": PatchHead(HEADS, SOURCE, {0: (1, 3), 1: (2, 4)}),
    "resample_head": ResampleHead(HEADS, SOURCE, positions=(1, 2), same_set=False),
    "static_attention": StaticAttention(HEADS, {0: random(8, 32).abs(), 1: random(8, 32).abs()}, EDGES),
    "edit_residual": EditResidual("mlp_output", (1, 2), "add", (1, 9), values={1: random(320), 2: random(320)}),
    "steer": Steer(random(320), 4.0, (2,), {0: (3, 10), 1: (1,)}),
    "project_out": ProjectOut(random(2, 320), (1, 3)),
}
ON_TOY = ("ablate_head", "scale_head", "knock_out", "knock_out_sinks", "calibrate_sinks")
SHORT = datasets.Dataset.from_dict({"input_ids": [[3, 1, 4, 1, 5], [2, 7, 1, 8, 2, 8]]})


def outputs(applied: Sequence[Edit]) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """z of every layer, and the logits."""
    seen: dict[int, torch.Tensor] = {}

    def tap(call: AttentionCall) -> torch.Tensor:
        for edit in applied:
            call = edit.call(call)
        z = attend(call).output
        assert z is not None
        for edit in applied:
            z = edit.output(call, z)
        seen[call.layer] = z
        return z

    with torch.no_grad(), SCOPE.attach(tap):
        return seen, SCOPE.logits(make_batch(PROMPTS, [0, 1], "cpu"))


def test_every_edit_has_an_example() -> None:
    assert set(EXAMPLES) == set(edits.names())
    for name in edits.names():
        assert edits.get(name).name == name


@pytest.mark.parametrize("name", edits.names())
def test_an_edit_changes_logits_and_leaves_nothing_behind(name: str) -> None:
    scope = SCOPE if name in ON_TOY else POCKET
    batch = make_batch(PROMPTS, [0, 1], "cpu")

    def logits(*applied: Edit) -> torch.Tensor:
        with torch.no_grad(), attached(scope, applied, batch):
            return scope.logits(batch)

    before = logits()
    assert not torch.allclose(logits(EXAMPLES[name]), before, atol=1e-4)
    torch.testing.assert_close(logits(), before, atol=0, rtol=0)


@pytest.mark.parametrize("name", edits.names())
def test_generation_on_left_padding_is_a_forward_of_each_prompt_alone(name: str) -> None:
    edit, steps = EXAMPLES[name], 4
    short = make_batch(SHORT, [0, 1], "cpu")
    ids, valid = (torch.stack([x[0].roll(1), x[1]]) for x in (short.input_ids, short.valid))
    batch = Batch(ids, valid, (0, 1), 2)
    with torch.no_grad(), attached(POCKET, [edit], batch):
        made = POCKET.model.generate(
            ids,
            attention_mask=valid.long(),
            max_new_tokens=steps,
            min_new_tokens=steps,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    for row in range(2):
        whole = made.sequences[row : row + 1, int(batch.starts[row]) : -1]
        alone = Batch(whole, torch.ones_like(whole, dtype=torch.bool), (row,), 2)
        own = edit
        if isinstance(edit, ResampleHead):
            own = PatchHead(HEADS, drawn(edit, batch, row), edit.positions)
        with torch.no_grad(), attached(POCKET, [own], alone):
            expected = POCKET.logits(alone)[0, -steps:]
        found = torch.stack([logits[row] for logits in made.logits])
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


def drawn(edit: ResampleHead, batch: Batch, row: int) -> Recording:
    """What a row draws, as a recording of one prompt: a longer prompt, by its tokens made since, could draw another."""
    own = edit.bound(batch)
    assert isinstance(own, ResampleHead)
    assert own._sources is not None
    one = own._sources[row]
    return Recording("z", {k: v[one : one + 1] for k, v in SOURCE.values.items()}, SOURCE.positions[:1], HEADS)


@pytest.mark.parametrize("name", edits.names())
def test_records_are_json_and_give_the_edit_back(name: str) -> None:
    edit = EXAMPLES[name]
    record = json.loads(json.dumps(edit.record()))
    assert record["edit"] == name
    tensors = tensors_of(edit)
    again = edit_from_record(record, tensors)
    assert type(again) is type(edit)
    assert again.record() == edit.record()
    for field in fields(edit):  # plain parameters come back equal, heads as heads
        value = getattr(edit, field.name)
        if field.init and not isinstance(value, torch.Tensor | Recording) and not tensors:
            assert getattr(again, field.name) == value
    if tensors:
        with pytest.raises(TaskError, match="of a recorded edit"):
            edit_from_record(record)


def test_records_tell_tensors_apart_and_refuse_what_is_none() -> None:
    one, other = (AblateHead(HEADS, {0: means, 1: means}) for means in (random(4, 8), random(8, 4).T))
    assert one.record() != other.record()
    assert one.record()["means"]["0"]["shape"] == other.record()["means"]["0"]["shape"] == [4, 8]
    with pytest.raises(TaskError, match="expected a name under 'edit'"):
        edit_from_record({"heads": ["L0H1"]})
    with pytest.raises(TaskError, match="record of scale_head"):
        edit_from_record({"edit": "scale_head", "heads": ["L0H1"], "size": 2})


def test_ablation_zeroes_just_these_heads() -> None:
    whole, ablated = outputs([])[0], outputs([AblateHead((HeadId(1, 3),))])[0]
    assert (ablated[1][:, 3] == 0).all()
    torch.testing.assert_close(ablated[1][:, :3], whole[1][:, :3])
    torch.testing.assert_close(ablated[0], whole[0])


def test_mean_ablation_writes_the_mean() -> None:
    means = {layer: z.mean((0, 2)) for layer, z in outputs([])[0].items()}
    ablated = outputs([AblateHead((HeadId(0, 2),), means)])[0]
    torch.testing.assert_close(ablated[0][:, 2], means[0][2].expand_as(ablated[0][:, 2]))
    with pytest.raises(UnknownHeadError, match=r"layers \[1\]"):
        AblateHead((HeadId(1, 0),), {0: means[0]})


def test_scaling_by_zero_is_ablation_and_by_one_is_nothing() -> None:
    torch.testing.assert_close(outputs([ScaleHead(HEADS, 0.0)])[1], outputs([AblateHead(HEADS)])[1])
    torch.testing.assert_close(outputs([ScaleHead(HEADS, 1.0)])[1], outputs([])[1])


def test_knockout_renormalises_rows() -> None:
    edited = EXAMPLES["knock_out"]
    calls: list[AttentionCall] = []

    def tap(call: AttentionCall) -> torch.Tensor:
        calls.append(call)
        output = attend(call).output
        assert output is not None
        return output

    with torch.no_grad(), SCOPE.attach(tap):
        SCOPE.run(make_batch(PROMPTS, [0, 1], "cpu"))
    call = edited.call(calls[1])
    assert edited.call(calls[0]) is calls[0]
    k = call.k.repeat_interleave(call.group_size, 1)
    logits = (call.q @ k.mT * call.scale).masked_fill(torch.ones(8, 8).triu(1).bool(), -torch.inf)
    logits[:, 0][..., [0, 2]] = -torch.inf
    expected = logits.softmax(-1).nan_to_num() @ call.v.repeat_interleave(call.group_size, 1)
    got = attend(call).output
    assert got is not None
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_edits_refuse_bad_input() -> None:
    with pytest.raises(UnknownHeadError, match="no heads"):
        AblateHead(())
    with pytest.raises(TaskError, match=r"knockout of key: found \[99\]"):
        outputs([KnockOut(keys=(99,))])
    with pytest.raises(TaskError, match=r"dimensions of an intervention: found \[9\]; expected 0..7"):
        NormDimensions((9,), "zero").stream(0, "mlp_norm_input", torch.zeros(1, 1, 8), None)
    with pytest.raises(TaskError, match=r"mean of mlp 0: found numbers for \[\]"):
        NormDimensions((1,), "mean").stream(0, "mlp_norm_input", torch.zeros(1, 1, 8), None)
    with pytest.raises(TaskError, match="2 numbers"):
        NormDimensions((1,), "mean", {"mlp 0": (1.0, 2.0)})
    with pytest.raises(TaskError, match="mode of an intervention: found 'none'"):
        NormDimensions((1,), "none")  # type: ignore[arg-type]
    with pytest.raises(UnknownHeadError, match="L7H0"):
        ablate_with_control(SCOPE.info, [HeadId(7, 0)], lambda e: torch.zeros(1).numpy())


def test_controls_exclude_the_heads_under_test() -> None:
    import numpy as np

    chooser = np.random.default_rng(0)
    for _ in range(20):
        others, matched = random_others(SCOPE.info, list(HEADS), chooser)
        assert matched
        assert [h.layer for h in others] == [0, 1]
        assert not set(others) & set(HEADS)
    most = [HeadId(0, h) for h in range(3)]
    others, matched = random_others(SCOPE.info, most, chooser)
    assert not matched
    assert len(others) == 3
    assert not set(others) & set(most)
    assert random_others(SCOPE.info, SCOPE.info.heads, chooser) == ([], False)


def test_a_write_at_positions_needs_to_know_the_prompts() -> None:
    scope = attnscope.load(device="cpu")
    edit = RescaleWrite(1, positions={0: (0,)})
    with torch.no_grad(), attached(scope, [edit]), pytest.raises(TaskError, match="prompts are not known"):
        scope.logits(make_batch(PROMPTS, [0, 1], "cpu"))
    with pytest.raises(TaskError, match="neurons of a write"):
        RescaleWrite(0, "attention", neurons=(1,))
