from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from attnscope.core.errors import ModelError, OutputError, TaskError, UnknownHeadError
from attnscope.core.ids import HeadId
from attnscope.testbed.planted import (
    KINDS,
    PlantedSink,
    PlantedSpec,
    expected_labels,
    knock_out,
    needle_prompts,
    plant,
    random_spec,
    repeat_prompts,
    save,
    spec_of,
    supporting_head,
    text_prompts,
    with_sinks,
)
from attnscope.testbed.planted.layout import Layout
from attnscope.testbed.planted.vocabulary import Vocabulary

PERIOD, LENGTH = 64, 256
# heads that satisfy another kind's score by their nature, not by mistake
EXEMPT = {"local": {"previous_token"}, "sink": {"induction", "retrieval", "duplicate_token"}}


def run(model, ids):
    """Patterns `[B, L, H, T, T]`, logits, block outputs `[L, B, T, d]`."""
    model.set_attn_implementation("eager")
    outputs = []
    hooks = [block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in model.model.layers]
    with torch.no_grad():
        result = model(input_ids=ids, output_attentions=True)
    for hook in hooks:
        hook.remove()
    return torch.stack(result.attentions, 1), result.logits, torch.stack(outputs)


def repeats(spec, seed=0):
    return torch.tensor(repeat_prompts(spec, 4, PERIOD, seed)["input_ids"])


def texts(spec, seed=0):
    return torch.tensor(text_prompts(spec, 4, LENGTH, seed)["input_ids"])


def copying_accuracy(model, spec):
    ids = repeats(spec)
    _, logits, _ = run(model, ids)
    return (logits[:, PERIOD + 1 : -1].argmax(-1) == ids[:, PERIOD + 2 :]).float().mean().item()


def needle_accuracy(model, spec):
    rows = needle_prompts(spec, 8, 120)
    ids = torch.tensor([row["input_ids"] + row["answer_ids"] for row in rows])
    _, logits, _ = run(model, ids)
    found = logits.argmax(-1).gather(1, torch.tensor(rows["query_positions"]))
    return (found == torch.tensor(rows["answer_ids"])).float().mean().item()


def scores(model, spec):
    """Every kind's dense pattern score, `{kind: [L, H]}`."""
    pattern, _, _ = run(model, repeats(spec))
    result = {
        # the first entry is BOS, the second the last token of the first copy, which is no repeat
        "induction": pattern.diagonal(1 - PERIOD, -2, -1)[..., 2:].mean((0, -1)),
        "duplicate_token": pattern.diagonal(-PERIOD, -2, -1)[..., 1:].mean((0, -1)),
    }
    pattern, _, _ = run(model, texts(spec))
    distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    uniform = (distance >= 0) / (1.0 + torch.arange(LENGTH)[:, None])
    near = (distance >= 0) & (distance < 16)
    result |= {
        "previous_token": pattern.diagonal(-1, -2, -1).mean((0, -1)),
        "sink": pattern[..., 0].mean((0, -1)),
        "local": (pattern * near).sum(-1).mean((0, -1)),
        "positional": pattern.diagonal(-spec.far_distance, -2, -1).mean((0, -1)),
        "uniform": 1 - (pattern - uniform).abs().sum(-1).mean((0, -1)) / 2,
        "itself": pattern.diagonal(0, -2, -1).mean((0, -1)),
    }
    rows = needle_prompts(spec, 6, 120)
    pattern, _, _ = run(model, torch.tensor([row["input_ids"] + row["answer_ids"] for row in rows]))
    masses = [pattern[i][:, :, row["query_positions"], row["source_positions"]] for i, row in enumerate(rows)]
    result["retrieval"] = torch.stack(masses).mean((0, -1))
    return result


def check_scores(model, spec):
    found = scores(model, spec)
    for kind in set(KINDS) - {"unclassified"}:
        for head in spec.all_heads():
            score = found[kind][head].item()
            if spec.kind(head) == kind:
                assert score > 0.95, (kind, head, score)
            elif spec.kind(head) not in EXEMPT.get(kind, ()):
                assert score < 0.3, (kind, head, spec.kind(head), score)
    for head in spec.of_kind("local"):
        assert found["previous_token"][head] <= 0.4
        assert found["itself"][head] <= 0.4


@pytest.mark.parametrize("seed", range(10))
def test_every_head_is_what_it_was_planted_as(seed):
    spec = random_spec(seed)
    model, _ = plant(spec)
    check_scores(model, spec)
    assert copying_accuracy(model, spec) > 0.99
    assert needle_accuracy(model, spec) == 1.0


@pytest.mark.parametrize("seed", range(10, 14))
def test_planted_sinks_and_the_residual_sink_disturb_no_head(seed):
    residual_sink = (seed, 20.0) if seed % 2 else None
    spec = with_sinks(replace(random_spec(seed), residual_sink=residual_sink), seed, norm=400.0)
    model, _ = plant(spec)
    check_scores(model, spec)
    assert copying_accuracy(model, spec) > 0.99
    assert needle_accuracy(model, spec) == 1.0


@pytest.mark.parametrize("norm", [200.0, 5000.0])
@pytest.mark.parametrize(("layer", "lifetime"), [(0, 1), (1, 2), (2, None)])
def test_a_planted_sink_has_its_layer_lifetime_and_norm(layer, lifetime, norm):
    token = Vocabulary(192).words[30]
    sinks = (PlantedSink("bos", 1, 2, norm), PlantedSink(token, layer, lifetime, norm))
    spec = replace(random_spec(2), sinks=sinks, heads={HeadId(2, 0): "sink", HeadId(3, 0): "local"})
    model, _ = plant(spec)
    ids = texts(spec)
    ids[ids == token] = token + 1
    ids[:, [1, 50, 51, 255]] = token
    written = {}
    for index in (1, layer):
        save_norms = partial(lambda index, *call: written.__setitem__(index, call[2].norm(dim=-1)), index)
        model.model.layers[index].mlp.register_forward_hook(save_norms)
    _, _, outputs = run(model, ids)
    norms = outputs.norm(dim=-1)
    for sink in sinks:
        here = torch.zeros_like(ids, dtype=torch.bool)
        here[:, 0 if sink.token == "bos" else [1, 50, 51, 255]] = True
        alive = list(sink.outputs(spec.n_layers))
        for block in range(spec.n_layers):
            if block in alive:
                torch.testing.assert_close(
                    norms[block][here], torch.full_like(norms[block][here], norm), rtol=0.01, atol=0
                )
            else:
                assert norms[block][here].max() < 10
    assert norms[:, (ids != 0) & (ids != token)].max() < 10
    torch.testing.assert_close(written[1][:, 0], torch.full((4,), norm), rtol=0.01, atol=0)
    torch.testing.assert_close(written[layer][:, 50], torch.full((4,), norm), rtol=0.01, atol=0)
    # the massive direction is shared
    massive = outputs[2, 0, 0] if lifetime != 1 else outputs[1, 0, 0]
    other = outputs[2, 0, 50] if lifetime != 1 else outputs[0, 0, 50]
    assert torch.cosine_similarity(massive, other, dim=0) > 0.99
    assert int(massive.abs().argmax()) == Layout(spec).sink_coordinate


def test_without_the_write_of_the_mlp_there_is_no_sink_attention():
    spec = PlantedSpec(
        heads={HeadId(2, 1): "sink"}, sinks=(PlantedSink("bos", 0, 3, 400.0),), sink_heads_read="direction"
    )
    model, _ = plant(spec)
    pattern, _, _ = run(model, texts(spec))
    assert pattern[:, 2, 1, :, 0].min() > 0.999
    model.model.layers[0].mlp.down_proj.weight.zero_()
    pattern, _, outputs = run(model, texts(spec))
    assert pattern[:, 2, 1, :, 0].mean() < 0.05
    assert outputs.norm(dim=-1).max() < 10


@pytest.mark.parametrize("magnitude", [8.0, 50.0])
def test_the_residual_sink_is_large_at_every_depth_but_not_on_bos(magnitude):
    spec = replace(random_spec(5), residual_sink=(7, magnitude))
    model, _ = plant(spec)
    check_scores(model, spec)
    _, _, outputs = run(model, texts(spec))
    size = outputs[:, :, 1:].abs().mean((1, 2))
    assert (size.argmax(-1) == 7).all()
    assert (size[:, 7] > 10 * size.median(-1).values).all()
    torch.testing.assert_close(outputs[:, :, 1:, 7], torch.full_like(outputs[:, :, 1:, 7], magnitude))
    assert outputs[:, :, 0, 7].abs().max() < 1e-3
    weights = [value for name, value in model.named_parameters() if "norm" in name]
    assert all(weight[7] < 1e-2 and weight.median() == 1 for weight in weights)


def test_knocking_out_an_induction_head_ends_copying_and_knocking_out_another_does_not():
    spec = random_spec(4)
    only = spec.of_kind("induction")[:1]
    heads = {head: kind for head, kind in spec.heads.items() if kind != "induction" or head in only}
    spec = replace(spec, heads=heads)
    model, _ = plant(spec)
    for head, kind in spec.heads.items():
        twin = knock_out(model, head)
        accuracy = copying_accuracy(twin, spec)
        if kind == "induction" or head == supporting_head(spec):
            assert accuracy < 0.1
        else:
            assert accuracy > 0.99, (head, kind)
        if kind == "retrieval":
            assert needle_accuracy(twin, spec) < 0.1


def test_a_knocked_out_head_is_unclassified_and_nothing_else_changed():
    spec = random_spec(6)
    model, _ = plant(spec)
    for kind in set(KINDS) - {"unclassified"}:
        head = spec.of_kind(kind)[0]
        twin = knock_out(model, head)
        assert spec_of(twin) == spec.without(head)
        assert spec_of(model) == spec
        again, _ = plant(spec.without(head))
        changed = [
            name for name, value in model.state_dict().items() if not torch.equal(value, twin.state_dict()[name])
        ]
        # output columns differ only where the head wrote into a subspace that others read
        place = f"model.layers.{head.layer}.self_attn."
        assert changed in ([f"{place}q_proj.weight"], [f"{place}q_proj.weight", f"{place}o_proj.weight"])
        rows = (model.state_dict()[changed[0]] != twin.state_dict()[changed[0]]).any(1).nonzero() // spec.head_dim
        assert rows.unique().tolist() == [head.head]
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in twin.state_dict().items())
        found = scores(twin, spec)
        labels = expected_labels(spec.without(head))
        assert labels[head] == {"unclassified"}
        for score in set(KINDS) - {"unclassified"}:
            assert found[score][head] < 0.3, (score, head)
        for other, names in labels.items():
            if names == {"sink"}:
                assert found["sink"][other] > 0.95
                assert found["induction"][other] < 0.05
                assert found["retrieval"][other] < 0.05
        dead = {other for other in labels if labels[other] != expected_labels(spec)[other]}
        if head == supporting_head(spec):
            assert dead == {head, *spec.of_kind("induction"), *spec.of_kind("retrieval")}
        else:
            assert dead == {head}


def test_unclassified_heads_are_diffuse_and_not_uniform():
    spec = random_spec(8)
    pattern, _, _ = run(plant(spec)[0], texts(spec))
    last = pattern[..., -1, :].clamp_min(1e-12)
    entropy = -(last * last.log()).sum(-1).mean(0)
    for head in spec.of_kind("unclassified"):
        assert 2.5 < entropy[head] < 5.0  # log 256 = 5.5


def test_expected_labels_name_every_head():
    spec = random_spec(1)
    labels = expected_labels(spec)
    assert list(labels) == spec.all_heads()
    assert labels[spec.of_kind("uniform")[0]] == {"positional"}
    assert labels[spec.of_kind("induction")[0]] == {"induction"}


def test_save_and_load_give_the_same_logits(tmp_path):
    spec = with_sinks(random_spec(3))
    model, _ = plant(spec)
    folder = save(spec, tmp_path / "planted")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    ids = texts(spec)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=0)
    assert spec_of(loaded) == spec
    assert loaded.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = needle_prompts(spec, 1, 64)[0]
    assert tokenizer(row["prompt"]).input_ids == row["input_ids"]
    assert tokenizer(row["answer"], add_special_tokens=False).input_ids == row["answer_ids"]
    with torch.no_grad():
        made = loaded.generate(torch.tensor([row["input_ids"]]), max_new_tokens=3, do_sample=False)
    assert made[0, 61:].tolist() == row["answer_ids"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    place = tmp_path / "file"
    place.write_text("taken")
    with pytest.raises(OutputError, match="file"):
        save(PlantedSpec(), place)


def test_the_seed_decides_everything():
    one, two, other = (plant(random_spec(seed))[0].state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"][: len(one)])
    spec = PlantedSpec()
    assert needle_prompts(spec, 3, 99, seed=1).to_list() == needle_prompts(spec, 3, 99, seed=1).to_list()
    assert needle_prompts(spec, 3, 99, seed=1).to_list() != needle_prompts(spec, 3, 99, seed=2).to_list()


def test_needle_positions_point_at_the_answer():
    spec = PlantedSpec()
    rows = needle_prompts(spec, 11, 40).to_list() + needle_prompts(spec, 3, 200).to_list()
    for row in rows:
        assert len(row["input_ids"]) + 3 == row["length"]
        assert [row["input_ids"][position] for position in row["source_positions"]] == row["answer_ids"]
        assert row["query_positions"] == [row["length"] - 4 + slot for slot in range(3)]
    assert rows[0]["source_positions"][0] == 2
    assert rows[10]["depth"] == 1.0


def test_the_spec_survives_json():
    spec = with_sinks(replace(random_spec(9), residual_sink=(3, 30.0)), norm=900.0)
    spec = spec.without(spec.of_kind("sink")[0])
    assert PlantedSpec.from_json(spec.to_json()) == spec


PREVIOUS = {HeadId(1, 0): "previous_token"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": {HeadId(0, 0): "induction"}}, "no previous-token head"),
        ({"heads": {**PREVIOUS, HeadId(1, 2): "induction"}}, "earlier layer"),
        ({"heads": {**PREVIOUS, HeadId(2, 0): "duplicate_token", HeadId(2, 1): "retrieval"}}, "share keys"),
        ({"heads": {HeadId(0, 0): "name_mover"}}, "one of sink"),
        ({"head_dim": 32}, "64 or 128"),
        ({"n_kv_heads": 3}, "divisor of 4"),
        ({"vocab_size": 2000}, "64 to 1024"),
        ({"far_distance": 2000}, "far distance"),
        ({"context_length": 10**6}, "context length"),
        ({"residual_sink": (192, 20.0)}, "dimension"),
        ({"residual_sink": (0, 1.0)}, "magnitude"),
        ({"sinks": [PlantedSink("bos", 4)]}, "layer: found 4"),
        ({"sinks": [PlantedSink("bos", 2, 3)]}, "lifetime: found 3"),
        ({"sinks": [PlantedSink("bos", 2, 1, 10.0)]}, "norm: found 10"),
        ({"sinks": [PlantedSink(0, 2, 1)]}, "token id"),
        ({"sinks": [PlantedSink(30, 0, 1), PlantedSink(30, 1, 1)]}, "one block apart"),
        ({"heads": {**PREVIOUS, HeadId(2, 0): "induction"}, "sinks": [PlantedSink(30, 0, 1)]}, "massive at the input"),
        ({"heads": {HeadId(1, 0): "sink"}, "sink_heads_read": "direction"}, "no BOS sink alive"),
        ({"knocked_out": {HeadId(0, 0)}}, "no planted head"),
    ],
)
def test_an_illegal_specification_says_why(changes, message):
    with pytest.raises(ModelError, match=message):
        PlantedSpec(**changes)


def test_heads_out_of_range_and_foreign_models_are_refused():
    with pytest.raises(UnknownHeadError, match="L9H0"):
        PlantedSpec(heads={HeadId(9, 0): "sink"})
    with pytest.raises(ModelError, match="no planted head there"):
        PlantedSpec(heads=PREVIOUS).without(HeadId(0, 0))
    with pytest.raises(ModelError, match="planted"):
        spec_of(torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="at least 8"):
        random_spec(0, n_layers=1, n_heads=4, n_kv_heads=4)
    for make in (needle_prompts, repeat_prompts, text_prompts):
        with pytest.raises(TaskError, match="length"):
            make(PlantedSpec(), 1, 5000)
        with pytest.raises(TaskError, match="at least 1"):
            make(PlantedSpec(), 0, 50)
