"""Models without trained weights: from a configuration alone, or a folder whose weights are left unread."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, Qwen3NextConfig

import attnscope
from attnscope.core.errors import (
    CorruptModelError,
    DeviceError,
    ModelError,
    ModelNotFoundError,
    UnknownNameError,
    UnsupportedModelError,
)
from attnscope.core.model_info import ModelInfo
from attnscope.core.paths import data_path
from attnscope.models import _hub, _memory
from attnscope.models._loading import load, outline
from attnscope.models._random import count, meta_model, random_model
from attnscope.models._shape import read_shape
from attnscope.models._source import shape_names

TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "dtype": "bfloat16",
}
PARAMETERS = {
    "gpt2": 124_439_808,
    "llama-3.1-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920,
    "qwen3-32b": 32_762_123_264,
}
SHAPES = {  # layers, query heads, KV heads, head size, context
    "gpt2": (12, 12, 12, 64, 1024),
    "llama-3.1-8b": (32, 32, 8, 128, 131072),
    "qwen3-0.6b": (28, 16, 8, 128, 40960),
    "qwen3-32b": (64, 64, 8, 128, 40960),
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


def random(config: object = None, model: object = None, **options: object):
    return load(model, config=config, random_weights=True, device="cpu", **options)


def test_every_shipped_shape_is_listed():
    assert shape_names() == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_shipped_shape_has_its_public_size(name):
    config = AutoConfig.from_pretrained(data_path(f"shapes/{name}.json"))
    info = outline(config=name, device="cpu", dtype="bfloat16").info
    assert (info.n_layers, info.n_heads, info.n_kv_heads, info.head_dim, info.context_length) == SHAPES[name]
    assert info.n_parameters == PARAMETERS[name]
    assert info.vocab_size == config.vocab_size
    assert (info.model_id, info.weights, info.weights_seed, info.dtype) == (name, "random", 0, "bfloat16")
    assert info.bos_token_id == config.bos_token_id < config.vocab_size
    assert info.causal


def test_shipped_shapes_say_their_positions_and_precision():
    llama = AutoConfig.from_pretrained(data_path("shapes/llama-3.1-8b.json"))
    assert llama.rope_parameters["rope_type"] == "llama3"
    assert llama.rope_parameters["rope_theta"] == 5e5
    assert llama.dtype == torch.bfloat16
    qwen = AutoConfig.from_pretrained(data_path("shapes/qwen3-0.6b.json"))
    assert qwen.rope_parameters["rope_theta"] == 1e6
    assert qwen.tie_word_embeddings


def test_a_configuration_alone_makes_a_model(tiny):
    scope = random(tiny)
    info = scope.info
    assert (info.model_id, info.weights, info.weights_seed) == (str(tiny), "random", 0)
    assert (info.dtype, info.device, info.n_heads, info.bos_token_id) == ("float32", "cpu", 4, 1)
    assert scope.tokenizer is None
    assert not scope.model.training
    assert not any(parameter.requires_grad for parameter in scope.model.parameters())
    assert info == outline(config=tiny, device="cpu").info
    assert random(tiny, dtype="bfloat16").info.dtype == "bfloat16"


def test_the_seed_makes_the_weights_and_leaves_the_global_state(tiny):
    state = torch.random.get_rng_state()
    first, second, other = random(tiny), random(str(tiny)), random(tiny, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.model.lm_head.weight, second.model.lm_head.weight)
    assert not torch.equal(first.model.lm_head.weight, other.model.lm_head.weight)
    assert other.info.weights_seed == 4


def test_a_folder_and_its_configuration_make_the_same_model_and_no_weights_are_read(tmp_path, tiny):
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(tiny, folder / "config.json")
    (folder / "model.safetensors").write_bytes(b"never opened")
    from_folder, from_file = random(model=folder), random(tiny)
    assert torch.equal(from_folder.model.lm_head.weight, from_file.model.lm_head.weight)
    assert from_folder.info.weights == "random"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"nor this")
    assert random(model=folder).info == from_folder.info


def test_the_embedded_folder_keeps_its_tokenizer():
    scope = random(model=data_path("pocket"))
    assert scope.tokenizer is not None
    assert scope.info.weights == "random"
    assert load(device="cpu").info.weights == "given"


def test_a_configuration_object_is_copied_not_changed():
    config = LlamaConfig(**{**TINY, "dtype": None})
    before = config.to_dict()
    scope = random(config, dtype="bfloat16")
    assert scope.info.model_id == "LlamaConfig"
    assert config.to_dict() == before
    assert scope.model.config is not config


def test_weights_are_made_on_the_device_itself():
    """A stand-in for the GPU: nothing of a parameter's size is ever made on the CPU."""
    made: list[tuple[str, int]] = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                made.append((result.device.type, result.numel()))
            return result

    shape = read_shape(config="llama-3.1-8b", random_weights=True, device="cpu")
    with Record():
        model = random_model(shape.kind, shape.config, torch.bfloat16, torch.device("meta"), seed=0, name="llama")
    assert count(model) == PARAMETERS["llama-3.1-8b"]
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert max((size for device, size in made if device == "cpu"), default=0) < 1000


def test_a_model_that_cannot_fit_is_refused_before_it_is_made(tiny, monkeypatch):
    monkeypatch.setattr(_memory, "free_memory", lambda device: 1000)
    monkeypatch.setattr("attnscope.models._pretrained.random_model", None)
    with pytest.raises(DeviceError, match=r"tiny\.json on cpu: found 0\.0 GiB free.*parameters in float32"):
        random(tiny)


def test_running_out_while_making_weights_is_a_device_error(monkeypatch):
    def fail(config: object, **_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LlamaForCausalLM, "_from_config", fail)
    with pytest.raises(DeviceError, match=r"random weights of llama on cpu: found out of memory"):
        random_model(LlamaForCausalLM, None, torch.float32, torch.device("cpu"), seed=0, name="llama")


def test_what_excludes_each_other_is_refused(tiny):
    with pytest.raises(ModelError, match=r"tiny\.json': found a shape without weights.*--random-weights"):
        load(config=tiny)
    with pytest.raises(ModelError, match=r"neither a model nor a configuration.*--config.*gpt2"):
        load(random_weights=True)
    with pytest.raises(ModelError, match="found both"):
        load("somewhere", config=tiny, random_weights=True)
    with pytest.raises(ModelError, match="found a revision"):
        random(tiny, revision="main")
    with pytest.raises(ModelError, match="found trust_remote_code"):
        random(tiny, trust_remote_code=True)
    with pytest.raises(DeviceError, match="device_map='auto'"):
        random(tiny, device_map="auto")
    model = LlamaForCausalLM(LlamaConfig(**TINY))
    with pytest.raises(ModelError, match="beside random_weights=True"):
        load(model, random_weights=True)
    with pytest.raises(ModelError, match="beside a configuration"):
        load(model, config=tiny)
    with pytest.raises(UnsupportedModelError, match="toy model: found a configuration"):
        load(config=tiny, backend="toy", random_weights=True)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ("llama-3.1-9b", UnknownNameError, r"no shape of this name.*Did you mean llama-3\.1-8b"),
        ("config.yaml", UnknownNameError, r"a file that ends in \.json, or one of gpt2"),
        ("none.json", ModelNotFoundError, r"none\.json'.*no such file"),
        ("folder", UnknownNameError, r"found a folder.*folder/config\.json"),
        ("folder.json", ModelNotFoundError, "found a folder"),
        ("broken.json", CorruptModelError, r"broken\.json"),
        ("list.json", CorruptModelError, r"list\.json.*a JSON list"),
        ("bytes.json", CorruptModelError, r"bytes\.json"),
        ("other.json", UnsupportedModelError, r"other\.json.*model_type"),
        ("unknown.json", UnsupportedModelError, r"unknown\.json.*no_such_model"),
        ("odd.json", CorruptModelError, r"odd\.json"),
        ("uneven.json", CorruptModelError, r"uneven\.json.*hidden size"),
        ("act.json", CorruptModelError, r"configuration of act\.json: found .*banana.*make a LlamaForCausalLM"),
        ("falcon.json", UnsupportedModelError, "falcon"),
        ("own.json", UnsupportedModelError, "Give the folder or hub id that holds the code"),
    ],
)
def test_a_bad_configuration(config, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder.json"):
        (tmp_path / folder).mkdir()
    for name, text in {
        "broken": "{",
        "list": "[]",
        "other": '{"a": 1}',
        "unknown": '{"model_type": "no_such_model"}',
        "odd": json.dumps({**TINY, "hidden_size": "many"}),
        "uneven": json.dumps({**TINY, "hidden_size": 30}),
        "act": json.dumps({**TINY, "hidden_act": "banana"}),
        "falcon": '{"model_type": "falcon"}',
        "own": '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}',
    }.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(error, match=message):
        random(config)
    with pytest.raises(UnsupportedModelError, match="a dict"):
        random({"model_type": "llama"})


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tiny):
    with pytest.raises(ModelError, match=r"found 4,096 tokens; expected at most the model's vocabulary of 300"):
        random(tiny, tokenizer=data_path("pocket"))
    config = LlamaConfig(**{**TINY, "vocab_size": 4096})
    assert random(config, tokenizer=data_path("pocket")).tokenizer is not None


def test_a_hub_model_s_weights_are_not_downloaded(monkeypatch, tmp_path, tiny):
    asked = {}

    def download(name, **options):
        asked.update(options)
        folder = tmp_path / "hub"
        folder.mkdir()
        shutil.copy(tiny, folder / "config.json")
        return str(folder)

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert random(model="a/b").info.model_id == "a/b"
    assert _hub._WEIGHTS not in asked["allow_patterns"]


def test_a_model_whose_forward_needs_numbers_has_no_outline_but_loads():
    config = Qwen3NextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16,
        shared_expert_intermediate_size=16, linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, max_position_embeddings=64,
    )  # fmt: skip
    assert outline(config=config, device="cpu") is None
    assert random(config).info.attention_layers == (3,)
    assert outline(backend="toy") is None


def test_meta_models_cost_nothing_and_count_tied_weights_once():
    config = LlamaConfig(**TINY, tie_word_embeddings=True)
    tied = meta_model(LlamaForCausalLM, config, torch.float32, name="tied")
    assert count(tied) == sum(p.numel() for p in LlamaForCausalLM(config).parameters())


def test_the_record_of_weights_is_whole():
    info = attnscope.load(backend="toy", seed=7).info
    assert (info.weights, info.weights_seed) == ("random", 7)
    for update in ({"weights": "given"}, {"weights_seed": None}):
        with pytest.raises(ValueError, match="weights with seed"):
            ModelInfo.model_validate({**info.model_dump(), **update})
