"""Out of memory: the error says where, how much, and what would fit; nothing keeps the failed batch alive."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import MethodType

import datasets
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import attnscope
from attnscope.core.errors import ContractError, DeviceError
from attnscope.engine import checkpoint, memory
from attnscope.engine.accuracy import token_accuracy
from attnscope.engine.collect import collect
from attnscope.engine.memory import fitting_tokens, read_shortage

MESSAGE = (
    "CUDA out of memory. Tried to allocate 8.00 GiB. GPU 0 has a total capacity of 80.00 GiB of which 3.00 GiB is "
    "free. Including non-PyTorch memory, this process has 77.00 GiB memory in use. Of the allocated memory 75.00 GiB "
    "is allocated by PyTorch, and 1.00 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory "
    "is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
GIB = 2**30


@pytest.fixture
def model() -> LlamaForCausalLM:
    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, max_position_embeddings=64)).eval()


def exhaust(module: torch.nn.Module, message: str = MESSAGE, above: int = 0) -> list[weakref.ref]:
    """Let a module's forward end out of memory, for prompts longer than `above`; returns what it held."""
    held: list[weakref.ref] = []
    forward = module.forward

    def fail(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] <= above:
            return forward(x)
        doubled = x * 2
        held.append(weakref.ref(doubled))
        raise torch.OutOfMemoryError(message)

    module.forward = MethodType(fail, module)
    return held


def prompts(*lengths: int) -> datasets.Dataset:
    rows = [list(range(1, 1 + length)) for length in lengths]
    return datasets.Dataset.from_dict(
        {"input_ids": rows, "query_positions": [[0] for _ in rows], "target_ids": [[2] for _ in rows]}
    )


def test_the_error_names_module_line_and_sizes(model, monkeypatch):
    monkeypatch.setattr(memory, "_allocated", lambda: {0: 15 * GIB})
    scope = attnscope.load(model)
    exhaust(model.model.layers[1].mlp)
    with pytest.raises(DeviceError) as caught:
        collect(scope, prompts(30), ["entropy"])
    text = str(caught.value)
    assert text.startswith("batch of 1 × 30 tokens on cuda:0: found out of memory: model.layers.1.mlp (")
    assert "unit/test_engine_memory.py:" in text
    assert "raise torch.OutOfMemoryError(message)" in text
    assert "asked for 8.00 GiB where 4.00 GiB was free" in text
    assert "about 28 tokens" in text  # 30 × (79 - 15) / (83 - 15)
    assert "Use a smaller --context, about 28, --dtype bfloat16, or a larger device." in text
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_a_line_inside_torch_is_named_by_the_model_s_line_that_called_it(model):
    scope, place = attnscope.load(model), {"torch": torch}
    source = "def forward(self, x):\n    raise torch.OutOfMemoryError('CUDA out of memory.')"
    exec(compile(source, str(Path(torch.__file__).parent / "nn" / "modules" / "linear.py"), "exec"), place)
    projection = model.model.layers[2].self_attn.o_proj
    projection.forward = MethodType(place["forward"], projection)
    with pytest.raises(
        DeviceError, match=r"model\.layers\.2\.self_attn\.o_proj \(llama/modeling_llama\.py:\d+: .*o_proj"
    ):
        token_accuracy(scope, prompts(8))


def test_several_prompts_need_smaller_batches_not_shorter_prompts(model, monkeypatch):
    monkeypatch.setattr(memory, "_allocated", lambda: {0: 15 * GIB})
    scope = attnscope.load(model)
    exhaust(model.lm_head)
    with pytest.raises(DeviceError, match=r"batch of 4 × 10 tokens.*lm_head.*a smaller --batch-tokens, about 37"):
        token_accuracy(scope, prompts(10, 10, 10, 10))


def test_without_figures_there_is_no_estimate(model):
    scope = attnscope.load(model)
    exhaust(model.model.norm, "CUDA out of memory.")
    with pytest.raises(DeviceError) as caught:
        collect(scope, prompts(9), ["entropy"])
    assert "model.norm (" in str(caught.value)
    assert "asked for an unknown amount where an unknown amount was free" in str(caught.value)
    assert "about" not in str(caught.value)
    assert "on cpu" in str(caught.value)


def test_free_memory_in_pieces_is_said(model, monkeypatch):
    monkeypatch.setattr(memory, "_allocated", lambda: {0: 15 * GIB})
    scope = attnscope.load(model)
    exhaust(model.model.layers[0].mlp, MESSAGE.replace("allocate 8.00", "allocate 3.50"))
    with pytest.raises(DeviceError, match=r"in pieces.*expandable_segments"):
        collect(scope, prompts(30), ["entropy"])


def test_the_failed_batch_is_let_go_of_and_a_smaller_one_works(model):
    scope = attnscope.load(model)
    held = exhaust(model.model.layers[1].mlp, above=8)
    with pytest.raises(DeviceError) as caught:
        collect(scope, prompts(20), ["entropy"])
    assert caught.value.__cause__ is not None
    assert [ref() for ref in held] == [None]
    assert collect(scope, prompts(8), ["entropy"]).sizes["prompt"] == 1


def test_other_errors_pass_through(model, monkeypatch):
    scope = attnscope.load(model)

    def refuse(*_: object) -> None:
        raise ContractError("a call")

    monkeypatch.setattr("attnscope.engine.edited.attend", refuse)
    with pytest.raises(ContractError, match="a call"):
        collect(scope, prompts(8), ["entropy"])


def test_what_was_done_before_stays_and_smaller_batches_go_on(model, tmp_path: Path, monkeypatch):
    scope, file = attnscope.load(model), tmp_path / "state.safetensors"
    rows = prompts(5, 6, 12, 12, 12)
    names = ["entropy", "received_mass"]
    whole = collect(scope, rows, names, batch_tokens=12)
    forward = model.model.layers[1].mlp.forward

    def fail(self, x):
        if x.shape[0] * x.shape[1] > 12:
            raise torch.OutOfMemoryError(MESSAGE)
        return forward(x)

    model.model.layers[1].mlp.forward = MethodType(fail, model.model.layers[1].mlp)
    monkeypatch.setattr(checkpoint.Checkpoint.__init__, "__defaults__", (0.0,))
    with pytest.raises(DeviceError, match="--batch-tokens"):
        collect(scope, rows, names, batch_tokens=24, checkpoint=file)
    seen: list[int] = []
    resumed = collect(
        scope, rows, names, batch_tokens=12, checkpoint=file, progress=lambda done, total: seen.append(done)
    )
    assert seen[0] == 11
    assert seen[-1] == 47
    assert abs(resumed.entropy - whole.entropy).max() < 1e-6


@pytest.mark.parametrize(
    ("capacity", "fit"), [(79, 100_000), (16, None), (15, None), (96, None), (200, None), (17, 1600)]
)
def test_fitting_tokens(capacity, fit):
    assert fitting_tokens(131072, start=16, peak=96, capacity=capacity) == fit


def test_shortage_reads_torch_s_message():
    read = read_shortage(MESSAGE)
    assert (read.gpu, read.asked, read.free, read.used, read.idle) == (0, 8 * GIB, 3 * GIB, 75 * GIB, GIB)
    assert (read.peak, read.capacity) == (83 * GIB, 79 * GIB)
    limited = MESSAGE.replace("in use. Of", "in use. 76.00 GiB allowed; Of")
    assert read_shortage(limited).capacity == 76 * GIB
    assert read_shortage("something else").capacity is None
