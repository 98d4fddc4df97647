"""Build, save and knock out planted models."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from attnscope.core.errors import ModelError, OutputError
from attnscope.core.ids import HeadId

from . import heads, mlps, waves
from .codes import LENGTH
from .layout import OUT, SINK_WEIGHT, Layout
from .spec import PlantedSpec
from .vocabulary import BOS, EOS, PAD, build_tokenizer

UNEMBEDDING = 10.0


def plant(spec: PlantedSpec) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return the model of a specification (float32, eval, CPU) and its tokenizer. The same spec, the same weights.

    Example:
        >>> spec = PlantedSpec(n_layers=2, heads={HeadId(0, 1): "previous_token", HeadId(1, 0): "induction"})
        >>> model, tokenizer = plant(spec)
        >>> tokens = tokenizer("w1 w2 w3 w1 w2", return_tensors="pt")
        >>> tokenizer.decode(model(input_ids=tokens.input_ids).logits[0, -1].argmax())
        'w3'
    """
    layout = Layout(spec)
    with torch.device("meta"):
        model = LlamaForCausalLM(_config(spec))
    model = model.to_empty(device="cpu")
    # the rotary frequencies are buffers that no state dict holds
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    model.load_state_dict({name: torch.tensor(array, dtype=torch.float32) for name, array in _weights(layout).items()})
    for head in sorted(spec.knocked_out):
        _silence(model, layout, head)
    model.eval().requires_grad_(False)
    return model, build_tokenizer(spec.vocab_size, spec.circuits)


def save(spec: PlantedSpec, folder: Path | str) -> Path:
    """Write the model and its tokenizer as a folder for `from_pretrained`; the spec travels in its config.

    Returns:
        The folder.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    model, tokenizer = plant(spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise OutputError(f"folder {folder}", found=str(error), expected="a folder that can be written") from error
    return folder


def spec_of(model: torch.nn.Module) -> PlantedSpec:
    """Return the specification of a planted model, also of one loaded from a folder.

    Raises:
        ModelError: the model was not planted.
    """
    data = getattr(getattr(model, "config", None), "planted", None)
    if data is None:
        raise ModelError(
            type(model).__name__, found="a config without `planted`", expected="a model from `plant` or `save`"
        )
    return PlantedSpec.from_json(data)


def knock_out(model: LlamaForCausalLM, head: HeadId) -> LlamaForCausalLM:
    """Return the twin in which one planted head is an unclassified one; no other weight differs.

    Knocking out the first previous-token head also stops every induction and retrieval head: `expected_labels` of
    the twin's spec says so.

    Raises:
        ModelError: the model was not planted, or this head was not.
    """
    spec = spec_of(model).without(HeadId(*head))
    twin = copy.deepcopy(model)
    twin.config.planted = spec.to_json()
    _silence(twin, Layout(spec), HeadId(*head))
    return twin


@torch.no_grad()
def _silence(model: LlamaForCausalLM, layout: Layout, head: HeadId) -> None:
    """Replace the head's query rows and output columns by those of an unclassified head, in place."""
    attention = model.model.layers[head.layer].self_attn
    size = layout.spec.head_dim
    rows = slice(head.head * size, (head.head + 1) * size)
    for weight, array in (
        (attention.q_proj.weight[rows], heads.query_weights(layout, head, "unclassified")),
        (attention.o_proj.weight[:, rows], heads.output_weights(layout, head, "unclassified")),
    ):
        weight.copy_(torch.as_tensor(array))


def _config(spec: PlantedSpec) -> LlamaConfig:
    theta = waves.rope_theta(spec.head_dim, spec.context_length)
    return LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=mlps.width(Layout(spec)),
        num_hidden_layers=spec.n_layers,
        num_attention_heads=spec.n_heads,
        num_key_value_heads=spec.n_kv_heads,
        head_dim=spec.head_dim,
        max_position_embeddings=spec.context_length,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
        planted=spec.to_json(),
    )


def _weights(layout: Layout) -> dict[str, np.ndarray]:
    """Return the state dict before any knock-out."""
    spec = layout.spec
    norm = np.ones(spec.hidden_size)
    if spec.residual_sink:
        norm[spec.residual_sink[0]] = SINK_WEIGHT
    codes = layout.codes * UNEMBEDDING / LENGTH**0.5
    weights = {"model.embed_tokens.weight": layout.embedding, "model.norm.weight": norm}
    weights["lm_head.weight"] = codes @ layout.read(OUT)
    for layer in range(spec.n_layers):
        queries, outputs = [], []
        for index in range(spec.n_heads):
            head = HeadId(layer, index)
            queries.append(heads.query_weights(layout, head, spec.kind(head)))
            outputs.append(heads.output_weights(layout, head, spec.kind(head)))
        groups = range(spec.n_kv_heads)
        block = mlps.neurons(layout, layer)
        parts = {
            "input_layernorm": norm,
            "post_attention_layernorm": norm,
            "self_attn.q_proj": np.concatenate(queries),
            "self_attn.k_proj": np.concatenate([heads.key_weights(layout, layer, group) for group in groups]),
            "self_attn.v_proj": np.concatenate([heads.value_weights(layout, layer) for _ in groups]),
            "self_attn.o_proj": np.concatenate(outputs, axis=1),
            "mlp.gate_proj": block.gate,
            "mlp.up_proj": block.up,
            "mlp.down_proj": block.down,
        }
        weights |= {f"model.layers.{layer}.{name}.weight": array for name, array in parts.items()}
    return weights
