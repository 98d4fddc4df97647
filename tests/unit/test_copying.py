"""The OV copying score: the plain V×V computation's, high for copying heads, missing where nothing is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

import attnscope
from attnscope.core.errors import UnknownNameError, UnsupportedModelError
from attnscope.core.report import Measured, Missing
from attnscope.engine.copying import copying_scores
from attnscope.models.hf import HFScope
from attnscope.models.toy import Toy
from attnscope.provenance import provenance
from attnscope.reports.build import build
from attnscope.testbed.planted import plant, random_circuits, random_spec

SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def build_model(name: str, **options: Any) -> Any:
    """A tiny model whose every weight, norms' too, is random."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    model = getattr(transformers, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.5)
    return model


def weight(module: Any) -> np.ndarray:
    return module.weight.detach().double().numpy()


def plain_score(read: np.ndarray, wv: np.ndarray, wo: np.ndarray, wu: np.ndarray) -> float:
    """From the V×V map itself: tokens as read `[V, M]`, W_V `[M, D]`, W_O `[D, M]`, W_U and final norm `[V, M]`."""
    values = np.linalg.eigvals(read @ wv @ wo @ wu.T)
    return float(values.sum().real / np.abs(values).sum())


def centred(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(-1, keepdims=True)


def test_llama_equals_the_plain_map_over_all_token_pairs():
    model = build_model("Llama", **SIZES, num_key_value_heads=2)
    found = copying_scores(HFScope(model)).copying.values
    unembedding = weight(model.lm_head) * weight(model.model.norm)
    for layer, block in enumerate(model.model.layers):
        read = weight(model.model.embed_tokens) * weight(block.input_layernorm)
        for head in range(4):
            group = slice(head // 2 * 6, head // 2 * 6 + 6)
            wv, wo = weight(block.self_attn.v_proj)[group].T, weight(block.self_attn.o_proj).T[head * 6 : head * 6 + 6]
            assert found[layer, head] == pytest.approx(plain_score(read, wv, wo, unembedding), abs=1e-4)


def test_gemma2_folds_one_plus_weight_and_the_norm_after_attention():
    model = build_model("Gemma2", **SIZES, num_key_value_heads=2, head_dim=8, sliding_window=4)
    found = copying_scores(HFScope(model)).copying.values
    unembedding = weight(model.lm_head) * (1 + weight(model.model.norm))
    for layer, block in enumerate(model.model.layers):
        read = weight(model.model.embed_tokens) * (1 + weight(block.input_layernorm))
        for head in range(4):
            group = slice(head // 2 * 8, head // 2 * 8 + 8)
            wo = weight(block.self_attn.o_proj).T[head * 8 : head * 8 + 8] * (
                1 + weight(block.post_attention_layernorm)
            )
            score = plain_score(read, weight(block.self_attn.v_proj)[group].T, wo, unembedding)
            assert found[layer, head] == pytest.approx(score, abs=1e-4)


def test_gpt2_centres_what_its_norms_read():
    model = build_model("GPT2", vocab_size=40, n_embd=24, n_layer=2, n_head=4, n_positions=32, bos_token_id=1)
    found = copying_scores(HFScope(model)).copying.values
    embedding, norm = weight(model.transformer.wte), weight(model.transformer.ln_f)
    for layer, block in enumerate(model.transformer.h):
        for head in range(4):
            part = slice(head * 6, head * 6 + 6)
            wv, wo = weight(block.attn.c_attn)[:, 48:][:, part], centred(weight(block.attn.c_proj)[part])
            score = plain_score(centred(embedding) * weight(block.ln_1), wv, wo, weight(model.lm_head) * norm)
            assert found[layer, head] == pytest.approx(score, abs=1e-4)


def test_the_toy_equals_the_plain_map_and_copies_by_design():
    toy = Toy(vocab_size=48)
    found = copying_scores(toy).copying.values
    embedding, unembedding = (part.double().numpy() for part in toy.token_embeddings())
    for layer, head in toy.info.heads:
        wv = toy.value_projection(layer)[head // 2].double().numpy()
        wo = toy.output_projection(layer)[head].double().numpy()
        assert found[layer, head] == pytest.approx(plain_score(embedding, wv, wo, unembedding), abs=1e-4)
    reads, writes = toy.value_projection(1)[0], toy.output_projection(1)
    product: Tensor = toy.model.unembedding @ toy.model.embedding
    with torch.no_grad():
        writes[0] = (product @ reads).T
        writes[1] = -writes[0]
        writes[2] = 0
    found = copying_scores(toy).copying
    assert found[1, 0] == pytest.approx(1, abs=1e-4)
    assert found[1, 1] == pytest.approx(-1, abs=1e-4)
    assert np.isnan(found[1, 2])
    assert found.attrs["units"] == "1"


@pytest.mark.parametrize("bos", [1, None])
def test_as_read_equals_the_plain_map_of_what_the_layers_read(bos):
    model = build_model("Llama", **{**SIZES, "bos_token_id": bos}, num_key_value_heads=2)
    scope = HFScope(model)
    found = copying_scores(scope, tokens="read", batch_tokens=30)
    assert (found.attrs["prompts"], found.attrs["prompt_set"]) == (40, "single tokens")
    prefix = [] if bos is None else [bos]
    with torch.no_grad():
        states = model(torch.tensor([[*prefix, token] for token in range(40)]), output_hidden_states=True).hidden_states
        for layer, block in enumerate(model.model.layers):
            read = block.input_layernorm(states[layer][:, -1]).double().numpy()
            for head in range(4):
                group = slice(head // 2 * 6, head // 2 * 6 + 6)
                wv = weight(block.self_attn.v_proj)[group].T
                wo = weight(block.self_attn.o_proj).T[head * 6 : head * 6 + 6]
                unembedding = weight(model.lm_head) * weight(model.model.norm)
                score = plain_score(read - read.mean(0), wv, wo, unembedding)
                assert found.copying.values[layer, head] == pytest.approx(score, abs=1e-4)


def test_what_stands_for_tokens_is_named():
    assert copying_scores(Toy(), tokens="read").copying.shape == (2, 4)
    with pytest.raises(UnknownNameError, match="embedding or read"):
        copying_scores(Toy(), tokens="logits")  # type: ignore[arg-type]


def test_the_pocket_models_copying_heads_copy_what_they_read():
    """Its induction and retrieval heads; from the bare embeddings they do not, since they read deep in the model."""
    scope = attnscope.load(device="cpu")
    copying = [(6, 4), (7, 0), (7, 1), (7, 6), (7, 7), (7, 5)]
    read, bare = (copying_scores(scope, tokens=tokens).copying for tokens in ("read", "embedding"))
    others = [float(read[head]) for head in scope.info.heads if tuple(head) not in copying]
    assert min(float(read[head]) for head in copying) > 0.8
    assert np.mean(others) < 0.3
    assert max(float(bare[head]) for head in copying) < 0.3


@pytest.mark.parametrize("tokens", ["embedding", "read"])
@pytest.mark.parametrize("spec", [random_spec(1), random_circuits(2)], ids=["kinds", "circuits"])
def test_planted_copying_heads_copy_and_the_others_move_no_logit(spec, tokens):
    model, tokenizer = plant(spec)
    found = copying_scores(attnscope.load(model, tokenizer=tokenizer), tokens=tokens).copying
    for head in spec.all_heads():
        if spec.kind(head) in ("induction", "retrieval", "second_lookup"):
            assert found[head] > 0.99, head
        else:
            assert np.isnan(found[head]), head


def test_a_model_that_reads_both_ways_is_refused():
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)).eval()
    with pytest.raises(UnsupportedModelError, match="not causal"):
        copying_scores(HFScope(model))


def test_a_report_takes_the_score_from_its_own_statistics():
    spec = random_spec(1)
    model, tokenizer = plant(spec)
    scope = attnscope.load(model, tokenizer=tokenizer)
    made_by = provenance(scope, 0, {}, ["torch"], None, ())
    report = build(scope.info, {"copying": copying_scores(scope)}, made_by)
    for record in report.records:
        copying = record.scores["copying"]
        if spec.kind(record.id) in ("induction", "retrieval"):
            assert isinstance(copying, Measured)
            assert copying.value > 0.99
            assert (copying.n, copying.prompt_set, copying.interval) == (0, "weights", None)
        else:
            assert copying == Missing(reason="the head's weights move no token's logit")
    without = build(scope.info, {}, made_by)
    assert without.records[0].scores["copying"] == Missing(reason="this report does not measure it")
