"""Calibration, streaming windows and knockout of sinks: against the dense matrix, with a cache, padded and batched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _dense_call import weights_of
from datasets import Dataset
from torch import Tensor

import attnscope
from attnscope.core.errors import TaskError, UnknownHeadError
from attnscope.core.ids import HeadId
from attnscope.edits._base import Edit
from attnscope.edits.calibrate_sinks import CalibrateSinks
from attnscope.edits.knock_out import KnockOut
from attnscope.edits.knock_out_sinks import KnockOutSinks
from attnscope.edits.scale_head import ScaleHead
from attnscope.edits.stream_window import StreamWindow
from attnscope.engine.batches import make_batch
from attnscope.engine.edited import edited as attach
from attnscope_kernels import AttentionCall, Result, Want, attend
from attnscope_kernels.impl.reference import attention_logits
from attnscope_kernels.testing import FEATURES, forbid_square, random_call

HEADS = (HeadId(0, 1), HeadId(0, 2))
S = (0, 2, 5)
SHAPES: dict[str, dict[str, Any]] = {
    **FEATURES,
    "decode": {"queries": 1, "keys": 64, "sink_logits": True, "padding": "left"},
    "chunk": {"queries": 20, "keys": 64, "sink_logits": True, "padding": "right"},
    "early_chunk": {"queries": 20, "keys": 22, "padding": "left"},
    "own_window": {"window": 30, "sink_logits": True, "padding": "left"},
}


def edited(call: AttentionCall, *edits: Edit) -> Tensor:
    """z as a tap gives it."""
    for edit in edits:
        call = edit.call(call)
    z = attend(call).output
    assert z is not None
    for edit in edits:
        z = edit.output(call, z)
    return z


def order(call: AttentionCall) -> Tensor:
    """Position of each key in its prompt `[B, Tk]`, counted one by one; -1 on padding."""
    b, tk = call.k.shape[0], call.k.shape[2]
    found = torch.full((b, tk), -1)
    for row in range(b):
        count: dict[int, int] = {}
        for key in range(tk):
            segment = 0 if call.segments is None else int(call.segments[row, key])
            if call.key_valid is None or call.key_valid[row, key]:
                found[row, key] = count[segment] = count.get(segment, -1) + 1
    return found


def finished(call: AttentionCall, weights: Tensor) -> Tensor:
    """z of a matrix, with padding and head_output."""
    z = weights @ call.v.double().repeat_interleave(call.group_size, 1)
    if call.padded_queries is not None:
        z = z.masked_fill(call.padded_queries[:, None, :, None], 0)
    if call.head_output is not None:
        z = z * call.head_output.scale.double()[:, None, None]
        if call.head_output.patches is not None:
            if call.head_output.kept is not None:
                z[:, list(call.head_output.patched)] *= call.head_output.kept[..., None].double()
            z[:, list(call.head_output.patched)] += call.head_output.patches.double()
    return z


def calibrated(weights: Tensor, sinks: Tensor, beta: float) -> Tensor:
    """The definition of ACT, row by row of the matrix."""
    removed = (1 - beta) * (weights * sinks).sum(-1, keepdim=True)
    others = (weights * ~sinks).sum(-1, keepdim=True)
    moved = weights * torch.where(sinks, torch.tensor(beta, dtype=torch.float64), 1 + removed / others)
    return torch.where(others > 0, moved, weights)


@pytest.mark.parametrize("beta", [0.0, 0.4, 0.9, 1.0])
@pytest.mark.parametrize("name", SHAPES)
def test_calibration_is_the_dense_definition(name: str, beta: float) -> None:
    call = random_call(dtype=torch.float64, **SHAPES[name])
    weights = weights_of(call)[0]
    sinks = torch.isin(order(call), torch.tensor(S))[:, None, None].expand_as(weights)
    new = weights.clone()
    new[:, [1, 2]] = calibrated(weights, sinks, beta)[:, [1, 2]]
    got = edited(call, CalibrateSinks({0: S}, HEADS, beta))
    torch.testing.assert_close(got, finished(call, new), atol=1e-9, rtol=1e-9)
    plain = edited(call)
    assert torch.equal(got[:, [0, 3]], plain[:, [0, 3]])
    assert torch.equal(got, plain) if beta == 1 else bool(call.window == 1 or not torch.equal(got, plain))


@pytest.mark.parametrize("sinks", [0, 4])
@pytest.mark.parametrize("name", SHAPES)
def test_streaming_is_the_dense_definition(name: str, sinks: int) -> None:
    call = random_call(dtype=torch.float64, **SHAPES[name])
    weights, _ = weights_of(call)
    logits, _ = attention_logits(call)
    query = call.offset + torch.arange(call.q.shape[2])
    near = (query[:, None] - torch.arange(call.k.shape[2])).abs() < 9
    first = (order(call) >= 0) & (order(call) < sinks)
    seen = near | first[:, None, None]
    kept = logits.masked_fill(~seen, -torch.inf)
    if call.sink_logits is not None:
        b, h, tq, _ = kept.shape
        kept = torch.cat([kept, call.sink_logits[None, :, None, None].expand(b, h, tq, 1)], -1)
    new = weights.clone()
    new[:, [1, 2]] = kept.softmax(-1).nan_to_num()[..., : weights.shape[-1]][:, [1, 2]]
    got = edited(call, StreamWindow(HEADS, sinks, 9))
    torch.testing.assert_close(got, finished(call, new), atol=1e-9, rtol=1e-9)
    assert torch.equal(got[:, [0, 3]], edited(call)[:, [0, 3]])


@pytest.mark.parametrize("name", SHAPES)
def test_knockout_of_sinks_is_the_dense_definition(name: str) -> None:
    call = random_call(dtype=torch.float64, **SHAPES[name])
    hidden = torch.isin(order(call), torch.tensor(S))
    knocked = call.replace(key_valid=~hidden if call.key_valid is None else call.key_valid & ~hidden)
    new, _ = weights_of(call)
    new[:, [1, 2]] = weights_of(knocked)[0][:, [1, 2]]
    got = edited(call, KnockOutSinks({0: S}, HEADS))
    torch.testing.assert_close(got, finished(call, new), atol=1e-9, rtol=1e-9)


def test_a_query_that_sees_only_sinks() -> None:
    call = random_call(queries=6, dtype=torch.float64)
    assert torch.equal(edited(call, CalibrateSinks({0: (0, 1)}, beta=0.0))[:, :, :2], edited(call)[:, :, :2])
    assert (edited(call, KnockOutSinks({0: (0, 1)}))[:, :, :2] == 0).all()


def test_scaling_acts_on_the_calibrated_head_in_either_order() -> None:
    call = random_call(dtype=torch.float64)
    act, half = CalibrateSinks({0: S}, HEADS), ScaleHead(HEADS, 0.5)
    expected = edited(call, act)
    expected[:, [1, 2]] *= 0.5
    torch.testing.assert_close(edited(call, act, half), expected)
    torch.testing.assert_close(edited(call, half, act), expected)
    torch.testing.assert_close(
        edited(call, act, act), edited(call, CalibrateSinks({0: S}, HEADS, 0.4 * 0.4)), atol=1e-12, rtol=1e-12
    )


def test_each_prompt_may_have_sinks_of_its_own() -> None:
    call = random_call(dtype=torch.float64, padding="left")
    keys = ({HEADS[0]: (1,)}, {HEADS[0]: (3, 4), HEADS[1]: (0,)})
    got = edited(call, CalibrateSinks(keys))
    for row in range(2):
        torch.testing.assert_close(got[row], edited(call, CalibrateSinks(keys[row]))[row])
    with pytest.raises(TaskError, match="3 prompts"):
        edited(call, CalibrateSinks((*keys, {HEADS[0]: (1,)})))


@pytest.mark.parametrize("edit", [CalibrateSinks({0: S}), StreamWindow(None, 4, 20), KnockOutSinks({0: S})])
def test_no_square(edit: Edit) -> None:
    call = random_call(queries=509, padding="left", sink_logits=True)
    with forbid_square(509):
        edited(call, edit)


EVERY_LAYER = dict.fromkeys(range(8), (0, 3))
EDITS: dict[str, Edit] = {
    "calibrate": CalibrateSinks(EVERY_LAYER),
    "stream": StreamWindow(None, 2, 4),
    "knock_out_sinks": KnockOutSinks(EVERY_LAYER),
    "knock_out": KnockOut(keys=(0, 3)),
    "knock_out_queries": KnockOut(keys=(0,), queries=(2, 3)),
}


@pytest.fixture(scope="module")
def pocket() -> Any:
    return attnscope.load()


def logits(scope: Any, edit: Edit, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Any:
    with torch.no_grad(), scope.attach(lambda call: edited(call, edit)):
        return scope.model(input_ids=ids, attention_mask=mask, **options)


@pytest.mark.parametrize("name", EDITS)
def test_a_cache_changes_nothing(pocket: Any, name: str, cache_argument: Any) -> None:
    ids = torch.randint(5, 500, (1, 14), generator=torch.Generator().manual_seed(0))
    argument, cache, pieces = cache_argument(pocket.model), None, []
    for piece in (ids[:, :6], ids[:, 6:9], *ids[:, 9:].split(1, 1)):
        output = logits(pocket, EDITS[name], piece, use_cache=True, **{argument: cache})
        cache = output[argument]
        pieces.append(output.logits)
    whole = logits(pocket, EDITS[name], ids).logits
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", EDITS)
def test_padding_and_batching_change_nothing(pocket: Any, name: str, side: str) -> None:
    random = torch.Generator().manual_seed(1)
    prompts = [torch.randint(5, 500, (n,), generator=random) for n in (13, 7)]
    ids, mask = torch.zeros(2, 13, dtype=torch.long), torch.zeros(2, 13, dtype=torch.long)
    places = [slice(13 - len(p), 13) if side == "left" else slice(0, len(p)) for p in prompts]
    for row, (prompt, place) in enumerate(zip(prompts, places, strict=True)):
        ids[row, place], mask[row, place] = prompt, 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    together = logits(pocket, EDITS[name], ids, mask, position_ids=positions).logits
    for row, (prompt, place) in enumerate(zip(prompts, places, strict=True)):
        alone = logits(pocket, EDITS[name], prompt[None]).logits[0]
        torch.testing.assert_close(together[row, place], alone, atol=2e-4, rtol=1e-3)


def test_generation(pocket: Any) -> None:
    ids = torch.randint(5, 500, (2, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    options = {"attention_mask": mask, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}

    def generated(edit: Edit) -> Tensor:
        with torch.no_grad(), pocket.attach(lambda call: edited(call, edit)):
            return pocket.model.generate(ids, **options)

    plain = pocket.model.generate(ids, **options)
    assert torch.equal(generated(CalibrateSinks(EVERY_LAYER, beta=1.0)), plain)
    assert torch.equal(generated(StreamWindow()), plain)
    edit = CalibrateSinks(EVERY_LAYER, beta=0.0)
    steps = generated(edit)
    for row, start in ((0, 0), (1, 3)):
        guesses = logits(pocket, edit, steps[row : row + 1, start:-1]).logits[0, -6:].argmax(-1)
        assert torch.equal(guesses, steps[row, -6:])


def test_a_cropped_sliding_cache_is_refused() -> None:
    call = random_call(queries=1, keys=8, window=8)
    with pytest.raises(TaskError, match="may have dropped"):
        edited(call, CalibrateSinks({0: S}))


def test_bad_input_is_named() -> None:
    for heads, keys, beta, error, message in [
        ((), {0: S}, 0.4, UnknownHeadError, "no heads"),
        (HEADS, {1: S}, 0.4, TaskError, "L0H1"),
        (None, {}, 0.4, TaskError, "no keys"),
        (None, {0: (-1,)}, 0.4, TaskError, r"layer 0.*\[-1\]"),
        (None, {0: S, HeadId(0, 1): S}, 0.4, TaskError, "together"),
        (None, {0: S}, 1.5, TaskError, r"beta 1\.5"),
    ]:
        with pytest.raises(error, match=message):
            CalibrateSinks(keys, heads, beta)  # type: ignore[arg-type]
    with pytest.raises(UnknownHeadError, match="L0H9"):
        edited(random_call(), KnockOutSinks({HeadId(0, 9): S}))
    with pytest.raises(UnknownHeadError, match="9"):
        edited(random_call(), StreamWindow((HeadId(0, 9),)))
    with pytest.raises(TaskError, match="0 recent"):
        StreamWindow(recent=0)


@pytest.mark.parametrize(
    ("window", "clash"),
    [(None, True), ((HeadId(1, 0),), True), ((HeadId(1, 1),), False), ((HeadId(0, 0),), False)],
)
def test_calibration_after_a_window_on_the_same_heads_is_refused(
    window: tuple[HeadId, ...] | None, clash: bool
) -> None:
    scope = attnscope.load(backend="toy")
    calibrated = CalibrateSinks({HeadId(1, 0): (0,)})
    streamed = StreamWindow(window, sinks=1, recent=2)
    with attach(scope, [calibrated, streamed]):
        pass
    if not clash:
        with attach(scope, [streamed, calibrated]):
            return
    with pytest.raises(TaskError, match="streaming window on the same heads"), attach(scope, [streamed, calibrated]):
        pass
    whole = CalibrateSinks({1: (0,)})
    with pytest.raises(TaskError, match="disjoint heads"), attach(scope, [StreamWindow((HeadId(1, 1),)), whole]):
        pass


@pytest.mark.parametrize("edit", [CalibrateSinks({1: (0,)}), StreamWindow(sinks=1, recent=2)])
def test_attention_anew_runs_on_the_kernels_that_were_asked_for(edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    import attnscope.engine.edited as engine

    scope, asked = attnscope.load(backend="toy"), []
    batch = make_batch(Dataset.from_dict({"input_ids": [[1, 2, 3, 4, 5, 6]]}), [0], scope.device)

    def spy(call: AttentionCall, want: Want | None = None, implementation: str = "auto") -> Result:
        asked.append(implementation)
        return attend(call, want, implementation)

    monkeypatch.setattr(engine, "attend", spy)
    with attach(scope, [edit], implementation="reference"):
        scope.run(batch)
    assert len(asked) > len(scope.info.attention_layers)
    assert set(asked) == {"reference"}
