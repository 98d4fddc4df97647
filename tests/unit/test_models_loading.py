"""Loading: every way it can go wrong ends in an error that names the thing, and nothing is left changed."""

from __future__ import annotations

import json
import logging
import shutil
import struct
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as hf_logging

from attnscope.core.errors import (
    CorruptModelError,
    DeviceError,
    ModelNotFoundError,
    UnknownNameError,
    UnsupportedModelError,
)
from attnscope.models import _memory
from attnscope.models._folder import check_weights, count_parameters
from attnscope.models._loading import load, require_causal
from attnscope.models._options import read_device, read_dtype
from attnscope.models.toy import Toy

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "llama"
    llama().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "llama"))


def test_a_folder_loads_without_a_tokenizer(folder):
    scope = load(folder, device="cpu")
    assert scope.tokenizer is None
    assert scope.info.model_id == str(folder)
    assert (scope.info.dtype, scope.info.device, scope.info.backend) == ("float32", "cpu", "hf")
    assert scope.info.n_parameters == count_parameters(folder / "model.safetensors")
    assert not scope.model.training
    assert not any(parameter.requires_grad for parameter in scope.model.parameters())


def test_dtype_is_as_asked(folder):
    assert load(folder, device="cpu", dtype="bfloat16").info.dtype == "bfloat16"
    assert load(str(folder), device="cpu", dtype=torch.float64).model.dtype == torch.float64


def test_half_precision_files_become_float32_on_the_cpu(tmp_path):
    llama().half().save_pretrained(tmp_path)
    assert load(tmp_path, device="cpu").info.dtype == "float32"


@pytest.mark.parametrize(
    "name", ["/no/such/place", "./nothing", "~/nothing/here", "a/b/c", "what is this?", "x.safetensors"]
)
def test_missing_paths_are_not_taken_for_hub_ids(name):
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        load(name, device="cpu")


def test_a_hub_id_without_the_network_says_what_was_tried(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelNotFoundError, match=r"'someone/model'.*no copy in .*cannot be reached.*local folder"):
        load("someone/model", device="cpu")


def test_a_hub_id_downloads_safetensors_and_no_code(monkeypatch, saved, tmp_path):
    import huggingface_hub

    asked = {}
    place = Path(shutil.copytree(saved, tmp_path / "models--a--b" / "snapshots" / "abc123"))

    def download(name, **kwargs):
        asked.update(name=name, **kwargs)
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    info = load("a/b", revision="main", device="cpu").info
    assert (info.model_id, info.revision) == ("a/b", "abc123")
    assert (asked["name"], asked["revision"]) == ("a/b", "main")
    assert not {"*.py", "*.bin", "*.pt"} & set(asked["allow_patterns"])


def test_a_file_is_not_a_folder(folder):
    with pytest.raises(ModelNotFoundError, match=r"model.safetensors.*found a file"):
        load(folder / "model.safetensors", device="cpu")


def test_a_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no config\.json among"):
        load(folder, device="cpu")


@pytest.mark.parametrize("text", ["{", "[]", "", '{"model_type": "llama", "hidden_size": "many"}'])
def test_a_broken_config(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CorruptModelError, match=r"config\.json"):
        load(folder, device="cpu")


def test_an_unknown_model_type(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    with pytest.raises(UnsupportedModelError, match="no_such_model"):
        load(folder, device="cpu")


def test_remote_code_is_never_run_unasked(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    with pytest.raises(UnsupportedModelError, match="trust_remote_code=True"):
        load(folder, device="cpu")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="no weights"):
        load(folder, device="cpu")


def test_pickles_are_never_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(UnsupportedModelError, match=r"pytorch_model\.bin.*safetensors"):
        load(folder, device="cpu")
    with pytest.raises(UnsupportedModelError, match="a pickle file"):
        load(folder / "pytorch_model.bin", device="cpu")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "huge header", "empty", "no offsets"])
def test_corrupt_weights_name_the_file(folder, damage):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    header = b'{"a": {"dtype": "F32", "shape": [1]}}'
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "garbage": b"\x10\0\0\0\0\0\0\0" + b"?" * 200,
            "huge header": struct.pack("<Q", 1 << 60) + whole,
            "empty": b"",
            "no offsets": struct.pack("<Q", len(header)) + header,
        }[damage]
    )
    with pytest.raises(CorruptModelError, match=r"model\.safetensors"):
        load(folder, device="cpu")


def test_a_missing_shard_and_a_missing_tensor(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    removed = "model.layers.0.self_attn.q_proj.weight"
    save_file(
        {name: value for name, value in tensors.items() if name != removed},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CorruptModelError, match=r"1 tensors missing.*q_proj"):
        load(folder, device="cpu")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptModelError, match="model-00001-of-00002"):
        load(folder, device="cpu")


def test_weights_of_another_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(CorruptModelError, match=r"weights of .*llama"):
        load(folder, device="cpu")


def test_a_model_larger_than_memory_is_refused_before_loading(folder, monkeypatch):
    monkeypatch.setattr(_memory, "free_memory", lambda device: 1000)
    with pytest.raises(DeviceError, match=r"GiB free.*billion parameters in float32.*bfloat16"):
        load(folder, device="cpu")


def test_free_memory_is_a_plausible_number():
    free = _memory.free_memory(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "mps", 3.5])
def test_unknown_devices(device):
    with pytest.raises(DeviceError, match=r"cpu|cuda"):
        read_device(device)


@pytest.mark.parametrize("dtype", ["int8", "float", "half?", torch.int64, 7])
def test_unknown_dtypes(dtype, folder):
    with pytest.raises(DeviceError, match="bfloat16"):
        load(folder, device="cpu", dtype=dtype)


def test_stored_dtype_is_kept_off_the_cpu():
    assert read_dtype("auto", torch.device("cuda"), torch.bfloat16) == torch.bfloat16


def test_unknown_backend():
    with pytest.raises(UnknownNameError, match="hf"):
        load(backend="hff")


def test_a_loaded_model_is_taken_as_it_is():
    model = llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = model.config.to_dict()
    state = torch.random.get_rng_state()
    scope = load(model)
    assert scope.model is model
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model._forward_hooks
    with pytest.raises(DeviceError, match="never moved"):
        load(model, dtype="bfloat16")


def test_something_else_is_no_model():
    with pytest.raises(UnsupportedModelError, match="a Linear"):
        load(torch.nn.Linear(2, 2))
    with pytest.raises(UnsupportedModelError, match="a Toy"):
        load("somewhere", backend="toy")
    toy = Toy()
    assert load(toy, backend="toy") is toy


def test_random_weights_need_no_files_and_are_reproducible(folder):
    (folder / "model.safetensors").unlink()
    state = torch.random.get_rng_state()
    first, second = (load(folder, device="cpu", random_weights=True) for _ in range(2))
    assert torch.equal(first.model.lm_head.weight, second.model.lm_head.weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_encoders_load_but_causal_measures_refuse_them(tmp_path):
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path)
    scope = load(tmp_path, device="cpu")
    assert not scope.info.causal
    with pytest.raises(UnsupportedModelError, match=r"the sink rate.*BertForMaskedLM"):
        require_causal(scope, "the sink rate")


def test_a_body_without_a_head_runs_but_has_no_logits():
    from attnscope.core.batch import Batch

    ids = torch.zeros(1, 3, dtype=torch.long)
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), (0,), 1)
    scope = load(llama().model)
    scope.run(batch)
    with pytest.raises(UnsupportedModelError, match="no vocabulary projection"):
        scope.logits(batch)


def test_a_broken_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CorruptModelError, match="tokenizer"):
        load(folder, device="cpu")


def test_logging_and_progress_bars_are_put_back(folder, capfd):
    hf_logging.set_verbosity(logging.INFO)
    before = hf_logging._tqdm_active
    try:
        load(folder, device="cpu")
        assert hf_logging.get_verbosity() == logging.INFO
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelNotFoundError):
            load(folder, device="cpu")
        assert (hf_logging.get_verbosity(), hf_logging._tqdm_active) == (logging.INFO, before)
    finally:
        hf_logging.set_verbosity_warning()
    assert "Loading weights" not in capfd.readouterr().err


def test_check_weights_counts_parameters(folder):
    assert check_weights(folder) == sum(parameter.numel() for parameter in llama().parameters())
