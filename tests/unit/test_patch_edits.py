"""Patches, residual edits, steering and recordings, on five architectures."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from _small_models import ARCHITECTURES, small_scope
from datasets import Dataset
from torch import Tensor

from attnscope.core.batch import Batch
from attnscope.core.errors import DeviceError, TaskError, UnknownHeadError
from attnscope.core.ids import HeadId
from attnscope.edits._base import Edit
from attnscope.edits._recording import Recording
from attnscope.edits.ablate_head import AblateHead
from attnscope.edits.edit_residual import SITES, EditResidual
from attnscope.edits.knock_out import KnockOut
from attnscope.edits.patch_head import PatchHead
from attnscope.edits.project_out import ProjectOut
from attnscope.edits.resample_head import ResampleHead
from attnscope.edits.scale_head import ScaleHead
from attnscope.edits.steer import Steer
from attnscope.engine.batches import make_batch
from attnscope.engine.edited import edited
from attnscope.engine.recordings import record_heads, record_site
from attnscope.engine.reference import measure_reference
from attnscope.models.hf import HFScope

CLEAN = Dataset.from_dict({"input_ids": [[1, 9, 8, 7, 6, 5, 4], [1, 20, 30, 40, 50], [1, 11, 12, 13, 14]]})
CORRUPT = Dataset.from_dict({"input_ids": [[1, 9, 33, 7, 34, 5, 4], [1, 21, 30, 40, 50], [1, 11, 42, 43, 14]]})
LAYERS = (0, 1)
ALL = tuple(HeadId(layer, head) for layer in LAYERS for head in range(4))
each_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def logits(
    scope: Any, prompts: Dataset, *edits: Edit, indices: Sequence[int] = (0, 1, 2), side: str = "right"
) -> Tensor:
    """Logits of the real tokens, prompt after prompt."""
    batch = make_batch(prompts, list(indices), "cpu")
    if side == "left":
        shift = [(batch.valid.shape[1] - int(n)) for n in batch.lengths]
        rolled = [torch.stack([x.roll(s) for x, s in zip(whole, shift)]) for whole in (batch.input_ids, batch.valid)]
        batch = Batch(*rolled, batch.prompts, batch.n_prompts)
    with torch.no_grad(), edited(scope, edits, batch):
        return scope.logits(batch)[batch.valid]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


def differ(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() > 1e-3 * expected.abs().max())


@each_architecture
def test_a_patch_of_the_same_run_changes_nothing(name: str) -> None:
    scope = small_scope(name)
    plain = logits(scope, CLEAN)
    close(logits(scope, CLEAN, PatchHead(ALL, record_heads(scope, CLEAN, ALL))), plain)
    for site in SITES:
        source = record_site(scope, CLEAN, site, LAYERS)
        close(logits(scope, CLEAN, EditResidual(site, LAYERS, "patch", source=source)), plain)


@each_architecture
def test_all_heads_of_a_layer_are_its_attention_output(name: str) -> None:
    scope = small_scope(name)
    heads = tuple(head for head in ALL if head.layer == 1)
    z, whole = record_heads(scope, CLEAN, heads), record_site(scope, CLEAN, "attention_output", [1])
    for positions in (None, (2, 4), {0: (3,), 2: (0, 4)}):
        by_head = logits(scope, CORRUPT, PatchHead(heads, z, positions))
        at_once = logits(scope, CORRUPT, EditResidual("attention_output", (1,), "patch", positions, source=whole))
        close(by_head, at_once)
        assert differ(by_head, logits(scope, CORRUPT))


@each_architecture
def test_all_heads_and_mlps_give_the_other_run_where_tokens_are_the_same(name: str) -> None:
    scope = small_scope(name)
    heads = PatchHead(ALL, record_heads(scope, CLEAN, ALL))
    mlps = EditResidual("mlp_output", LAYERS, "patch", source=record_site(scope, CLEAN, "mlp_output", LAYERS))
    same = torch.cat([torch.tensor(a) == torch.tensor(b) for a, b in zip(CLEAN["input_ids"], CORRUPT["input_ids"])])
    clean, corrupt = logits(scope, CLEAN), logits(scope, CORRUPT)
    close(logits(scope, CORRUPT, heads, mlps)[same], clean[same])
    assert differ(corrupt[same], clean[same])
    start = EditResidual("block_input", (0,), "patch", source=record_site(scope, CLEAN, "block_input", [0]))
    close(logits(scope, CORRUPT, start), clean)


@each_architecture
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batching_change_nothing(name: str, side: str) -> None:
    scope = small_scope(name)
    third = record_site(scope, CLEAN, "mlp_output", [0], positions=(3,))
    edits: list[list[Edit]] = [
        [PatchHead(ALL[2:6], record_heads(scope, CLEAN, ALL), {0: (4,), 1: (1, 3)})],
        [ResampleHead(ALL[4:], record_heads(scope, CLEAN, ALL), seed=3, same_set=False)],
        [AblateHead(ALL[:3], positions=(1, 4)), ScaleHead(ALL[5:], 3.0, positions=(0,))],
        [EditResidual("neurons", (1,), "zero", (2,), columns=(3, 5, 7))],
        [EditResidual("mlp_output", (0,), "patch", source=third)],
        [Steer(torch.arange(32.0) - 16, 0.2, (0,), (1,)), ProjectOut(torch.arange(32.0), (0,), (2,))],
        [KnockOut({0: (1,), 1: (0, 2)}, {0: (5, 6), 1: (4,)})],
    ]
    plain = logits(scope, CORRUPT)
    for chosen in edits:
        alone = [logits(scope, CORRUPT, *chosen, indices=[i]) for i in range(3)]
        close(logits(scope, CORRUPT, *chosen, side=side), torch.cat(alone))
        assert differ(torch.cat(alone), plain)


@each_architecture
def test_generation_is_a_forward_of_the_whole(name: str) -> None:
    scope = small_scope(name)
    batch = make_batch(Dataset.from_dict({"input_ids": [[3, 9, 33, 7, 34], [3, 21, 30, 40, 50]]}), [0, 1], "cpu")
    edits: list[Edit] = [
        PatchHead(ALL[:2], record_heads(scope, CLEAN, ALL[:2]), {0: (4, 6), 1: (2,)}),
        EditResidual("mlp_output", (0,), "add", {1: (3, 6)}, values={0: torch.linspace(-1, 1, 32)}),
        Steer(torch.linspace(1, -2, 32), 1.0, (1,), (0, 5)),
        AblateHead(ALL[6:], positions=(4, 5)),
    ]
    with torch.no_grad(), edited(scope, edits, batch):
        made = scope.model.generate(
            batch.input_ids,
            attention_mask=batch.valid.long(),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        stepwise = torch.stack(made.logits, 1)
        whole = scope.model(input_ids=made.sequences).logits[:, 4:-1]
    close(stepwise, whole)
    with torch.no_grad():
        assert differ(whole, scope.model(input_ids=made.sequences).logits[:, 4:-1])


@each_architecture
def test_a_prompt_in_pieces_is_the_prompt_at_once(name: str, cache_argument: Any) -> None:
    scope = small_scope(name)
    source = record_heads(scope, CLEAN.select([0]), ALL)
    edits: list[Edit] = [
        PatchHead(ALL[:5], source, (1, 3, 4)),
        EditResidual("neurons", (0, 1), "zero", (2, 5), columns=tuple(range(20))),
        Steer(torch.linspace(-1, 1, 32), 2.0, (0,), (3, 6)),
        KnockOut(keys=(0,), queries=(1, 4, 6), layers=(1,)),
    ]
    ids = torch.tensor([CORRUPT["input_ids"][0]])
    argument, cache, pieces = cache_argument(scope.model), None, []
    with torch.no_grad(), edited(scope, edits):
        for piece in (ids[:, :2], ids[:, 2:5], ids[:, 5:6], ids[:, 6:]):
            output = scope.model(input_ids=piece, use_cache=True, **{argument: cache})
            cache = output[argument]
            pieces.append(output.logits)
    close(torch.cat(pieces, 1)[0], logits(scope, CORRUPT, *edits, indices=[0]))


def test_the_stream_knows_positions_under_a_sliding_cache_and_heads_say_where_they_do_not() -> None:
    model = deepcopy(small_scope("Gemma2").model)
    for part in model.modules():
        if getattr(part, "sliding_window", None) is not None:
            part.sliding_window = 4
    model.config.sliding_window = 4
    scope = HFScope(model)
    ids = torch.tensor([CORRUPT["input_ids"][0]])
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "output_logits": True}
    steer = Steer(torch.linspace(-3, 3, 32), 2.0, (0, 1), (8,))
    with torch.no_grad(), edited(scope, [steer]):
        made = model.generate(ids, return_dict_in_generate=True, **options)
        whole = model(input_ids=made.sequences).logits[:, 6:-1]
    close(torch.stack(made.logits, 1), whole)
    with torch.no_grad():
        assert differ(model(input_ids=made.sequences).logits[:, 8], whole[:, 2])
    patch = PatchHead(ALL[:1], record_heads(scope, CLEAN.select([0]), ALL[:1]))
    with torch.no_grad(), edited(scope, [patch]), pytest.raises(TaskError, match="may have dropped earlier ones"):
        model.generate(ids, **options)


def test_edits_act_in_the_order_given() -> None:
    scope = small_scope("Llama")
    head = (HeadId(1, 2),)
    source = record_heads(scope, CLEAN, head)
    patch, half, stop = PatchHead(head, source), ScaleHead(head, 0.5), AblateHead(head)

    def z(*edits: Edit) -> Tensor:
        return record_heads(scope, CORRUPT, head, edits=edits).values[1]

    clean, own = source.values[1], z()
    torch.testing.assert_close(z(half, patch), clean)
    torch.testing.assert_close(z(patch, half), clean / 2)
    assert (z(patch, stop) == 0).all()
    at = PatchHead(head, source, (1, 3))
    expected = torch.zeros_like(own)
    expected[:, [1, 3]] = clean[:, [1, 3]]
    torch.testing.assert_close(z(stop, at), expected)
    expected = own / 2
    expected[:, [1, 3]] = clean[:, [1, 3]]
    torch.testing.assert_close(z(half, at), expected)
    expected[:, [1, 3]] *= 4
    torch.testing.assert_close(z(half, at, ScaleHead(head, 4.0, (1, 3))), expected)
    other = PatchHead(head, record_heads(scope, CORRUPT, head), (3,))
    expected[:, 1], expected[:, 3] = clean[:, 1], own[:, 3]
    torch.testing.assert_close(z(half, at, other), expected)


def test_steering_back_and_removing_a_direction() -> None:
    scope = small_scope("Gemma2")
    direction = torch.linspace(-1, 2, 32)
    there = Steer(direction, 3.0, LAYERS, (1, 2))
    back = Steer(direction, -3.0, LAYERS, (1, 2))
    close(logits(scope, CLEAN, there, back), logits(scope, CLEAN))
    assert differ(logits(scope, CLEAN, there), logits(scope, CLEAN))
    stacked = torch.stack([direction, direction.flip(0).square()])
    left = record_site(scope, CLEAN, "block_output", [0], edits=[ProjectOut(stacked, (0,), (1, 2))]).values[0]
    plain = record_site(scope, CLEAN, "block_output", [0]).values[0]
    assert (left[:, 1:3] @ stacked.T).abs().max() < 1e-4 * (plain[:, 1:3] @ stacked.T).abs().max()
    torch.testing.assert_close(left[:, 3:], plain[:, 3:])


@each_architecture
def test_modes_of_a_residual_edit(name: str) -> None:
    scope = small_scope(name)
    plain = record_site(scope, CLEAN, "mlp_output", [1]).values[1]
    value = torch.linspace(0, 1, 32)
    wanted = {
        "zero": plain * 0,
        "mean": value.expand_as(plain),
        "scale": plain * 0.25,
        "add": plain + 0.25 * value,
    }
    held = record_site(scope, CLEAN, "mlp_output", [1]).positions < 100
    for mode, expected in wanted.items():
        edit = EditResidual("mlp_output", (1,), mode, (0, 3), (1, 30), {1: value}, 0.25)  # type: ignore[arg-type]
        found = record_site(scope, CLEAN, "mlp_output", [1], edits=[edit]).values[1]
        mixed = plain.clone()
        for position in (0, 3):
            mixed[:, position, [1, 30]] = expected[:, position, [1, 30]]
        torch.testing.assert_close(found[held], mixed[held])


def test_a_mean_is_what_a_constant_head_says() -> None:
    model = deepcopy(small_scope("GPT2").model)
    with torch.no_grad():
        model.transformer.h[1].attn.c_attn.weight[:, 64:] = 0  # values are their bias
        model.transformer.h[1].attn.c_attn.bias[64:] = torch.linspace(1, 2, 32)
    scope = HFScope(model)
    heads = ALL[4:]
    reference = measure_reference(scope, CLEAN, sites=["mlp_output", "neurons"], by_position=True)
    torch.testing.assert_close(reference.heads[1].flatten(), torch.linspace(1, 2, 32))
    close(logits(scope, CORRUPT, reference.mean_ablation(heads)), logits(scope, CORRUPT))
    assert differ(logits(scope, CORRUPT, reference.mean_ablation(ALL[:4])), logits(scope, CORRUPT))
    assert differ(logits(scope, CORRUPT, AblateHead(heads)), logits(scope, CORRUPT))


@each_architecture
def test_a_reference_is_the_plain_mean(name: str) -> None:
    scope = small_scope(name)
    made = measure_reference(scope, CLEAN, sites=["mlp_output", "neurons"], by_position=True, skip=1, batch_tokens=7)
    assert made.tokens == 14
    z, mlp = record_heads(scope, CLEAN, ALL), record_site(scope, CLEAN, "mlp_output", LAYERS)
    rows = [z.values[1][i, : len(ids)] for i, ids in enumerate(CLEAN["input_ids"])]
    torch.testing.assert_close(made.heads[1], torch.cat([row[1:] for row in rows]).mean(0))
    for position in range(7):
        here = torch.stack([row[position] for row in rows if len(row) > position])
        torch.testing.assert_close(made.by_position["z"].values[1][0, position], here.mean(0))
    writes = torch.cat([mlp.values[0][i, 1 : len(ids)] for i, ids in enumerate(CLEAN["input_ids"])])
    torch.testing.assert_close(made.sites["mlp_output"][0], writes.mean(0), atol=1e-5, rtol=1e-5)
    edit = PatchHead(ALL, made.by_position["z"])
    found = record_heads(scope, CORRUPT, ALL, edits=[edit]).values[1][0]
    torch.testing.assert_close(found, made.by_position["z"].values[1][0])


def test_resampling_never_draws_the_prompt_itself_and_says_when_it_cannot() -> None:
    scope = small_scope("Llama")
    head = (HeadId(0, 1),)
    same = Dataset.from_dict({"input_ids": [[1, 5, 6, i] for i in range(10, 16)]})
    source = record_heads(scope, same, head)
    drawn = record_heads(scope, same, head, edits=[ResampleHead(head, source)]).values[0]
    for prompt in range(6):
        others = [i for i in range(6) if torch.equal(drawn[prompt], source.values[0][i])]
        assert len(others) == 1
        assert others != [prompt]
    again = record_heads(scope, same, head, edits=[ResampleHead(head, source)], batch_tokens=4).values[0]
    torch.testing.assert_close(again, drawn)
    with pytest.raises(TaskError, match="prompt 0: found no other recorded prompt with these positions of its 7"):
        logits(scope, CLEAN, ResampleHead(head, record_heads(scope, CLEAN, head)))
    last = record_heads(scope, same, head, positions=(3,))
    at_last = record_heads(scope, same, head, edits=[ResampleHead(head, last, (3,))]).values[0]
    torch.testing.assert_close(at_last[:, 3], drawn[:, 3])
    torch.testing.assert_close(at_last[:, :3], source.values[0][:, :3])


def test_q_k_and_v_are_recorded() -> None:
    scope = small_scope("Llama")
    call_heads = (HeadId(0, 1), HeadId(0, 2))
    made = {what: record_heads(scope, CLEAN, call_heads, what=what).values[0] for what in ("q", "k", "v", "z")}  # type: ignore[arg-type]
    weights = torch.einsum("bqhd,bkhd->bhqk", made["q"], made["k"]) * 8**-0.5
    length = len(CLEAN["input_ids"][0])
    pattern = weights[0].masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)
    torch.testing.assert_close(torch.einsum("hqk,khd->qhd", pattern, made["v"][0]), made["z"][0], atol=1e-5, rtol=1e-4)


def test_what_cannot_be_is_refused() -> None:
    scope = small_scope("Llama")
    source = record_heads(scope, CLEAN, ALL[:2])
    with pytest.raises(UnknownHeadError, match=r"no recording of \[L0H2\]"):
        PatchHead(ALL[:3], source)
    with pytest.raises(TaskError, match=r"no recording of layers \[1\]"):
        PatchHead((HeadId(1, 0),), source)
    with pytest.raises(TaskError, match="found a recording of z; expected one of mlp_output"):
        EditResidual("mlp_output", (0,), "patch", source=source)
    with pytest.raises(TaskError, match=r"found \[-1\]"):
        PatchHead(ALL[:2], source, (-1,))
    with pytest.raises(DeviceError, match=r"recording of 2 heads or layers at 21 tokens: found 1,344 bytes"):
        record_heads(scope, CLEAN, ALL[:2], limit=1000)
    with pytest.raises(TaskError, match=r"recording of prompt 1: found \[5\]"):
        record_heads(scope, CLEAN, ALL[:2], positions={0: (5,), 1: (5,)})
    with torch.no_grad(), edited(scope, [PatchHead(ALL[:2], source)]), pytest.raises(TaskError, match="not known"):
        scope.logits(make_batch(CLEAN, [0], "cpu"))
    four = Dataset.from_dict({"input_ids": [[1, 2], [1, 2], [1, 2], [1, 2]]})
    with pytest.raises(TaskError, match=r"found prompts \[3\]; expected recorded prompts, 0..2"):
        logits(scope, four, PatchHead(ALL[:2], source), indices=[0, 3])
    with pytest.raises(TaskError, match=r"columns of neurons: found \[48\]"):
        logits(scope, CLEAN, EditResidual("neurons", (0,), "zero", columns=(48,)))
    with pytest.raises(TaskError, match="31 numbers"):
        logits(scope, CLEAN, Steer(torch.ones(31), 1.0, (0,)))
    with pytest.raises(TaskError, match="rank 1"):
        ProjectOut(torch.ones(2, 32), (0,))
    with pytest.raises(TaskError, match="mode of a residual edit: found 'none'"):
        EditResidual("mlp_output", (0,), "none")  # type: ignore[arg-type]


def test_one_recorded_prompt_serves_every_row_without_a_batch() -> None:
    scope = small_scope("Qwen3")
    source = record_heads(scope, CLEAN.select([0]), ALL)
    ids = torch.tensor([CORRUPT["input_ids"][0]] * 2)
    with torch.no_grad(), edited(scope, [PatchHead(ALL, source)]):
        found = scope.model(input_ids=ids).logits
    close(found[1], logits(scope, CORRUPT.select([0]), PatchHead(ALL, source), indices=[0]))


def test_a_recording_finds_positions_wherever_they_stand() -> None:
    values = torch.arange(6.0).view(2, 3, 1)
    made = Recording("mlp_output", {0: values}, torch.tensor([[1, 4, 2**62], [0, 2, 9]]))
    found, known = made.at(0, [1, 0], torch.tensor([[-1, 0, 1, 2, 9, 10], [-1, 0, 1, 4, 5, 2**61]]))
    assert known.tolist() == [[False, True, False, True, True, False], [False, False, True, True, False, False]]
    assert found[..., 0][known].tolist() == [3.0, 4.0, 5.0, 0.0, 1.0]
