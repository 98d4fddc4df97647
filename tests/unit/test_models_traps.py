"""The traps of transformers' attention interface, one test each."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attnscope.core.batch import Batch
from attnscope.core.errors import TapError, UnsupportedModelError
from attnscope.models import _masks, _refusals
from attnscope.models._attention import normalise
from attnscope.models._check import identity, verify
from attnscope.models._projection import split_projection
from attnscope.models._session import NAME, sessions, tap_attention
from attnscope.models.hf import HFScope
from attnscope_kernels import AttentionCall

ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}


def llama(**options: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **options})).eval()


@pytest.fixture
def scope() -> HFScope:
    return HFScope(llama())


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def prompts(t: int = 7, padded: bool = False) -> Batch:
    ids = torch.randint(3, 40, (2, t), generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(ids, dtype=torch.bool)
    valid[0, :2] = not padded
    return Batch(ids, valid, (0, 1), 2)


def zeros(call: AttentionCall) -> Tensor:
    return call.v.new_zeros(*call.q.shape[:3], call.v.shape[3])


def test_the_name_changes_no_meaning():
    assert not any(part in NAME for part in ("sdpa", "flash", "flex", "paged", "eager", "/", "|"))


def test_the_fifth_parameter_is_named_attention_mask():
    assert list(inspect.signature(tap_attention).parameters)[4] == "attention_mask"


def test_attention_and_mask_functions_are_registered_together_and_once(scope):
    with scope.attach(identity):
        scope.run(prompts())
    first = AttentionInterface._global_mapping[NAME], AttentionMaskInterface._global_mapping[NAME]
    with HFScope(llama()).attach(identity):
        assert first == (AttentionInterface._global_mapping[NAME], AttentionMaskInterface._global_mapping[NAME])
    assert first[0] is tap_attention


def test_importing_the_backend_touches_nothing():
    code = (
        "import attnscope.models.hf, sys; assert 'transformers' not in sys.modules; "
        "from transformers import AttentionInterface as A; "
        f"assert {NAME!r} not in A._global_mapping"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_a_transformers_model_imports_from_the_repository_root():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    code = "import sys; sys.path.insert(0, ''); from transformers import LlamaForCausalLM as M; print(M.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "LlamaForCausalLM"


def test_a_mapping_that_another_library_wrapped_still_taps(scope):
    """kvpress assigns wrappers into the mapping, which shadows any later `register` of the same name."""
    seen: list[str] = []
    with scope.attach(identity):
        pass

    def wrapper(*args, **kwargs):
        seen.append("wrapped")
        return tap_attention(*args, **kwargs)

    ALL_ATTENTION_FUNCTIONS[NAME] = wrapper
    try:
        batch = prompts(padded=True)
        plain = scope.logits(batch)
        with scope.attach(identity):
            tapped = scope.logits(batch)
        assert seen == ["wrapped"] * 2
        assert torch.allclose(tapped[batch.valid], plain[batch.valid], atol=1e-5)
        ALL_ATTENTION_FUNCTIONS[NAME] = ALL_ATTENTION_FUNCTIONS["sdpa"]
        with pytest.raises(TapError, match="layer 0: 0, layer 1: 0"), scope.attach(identity):
            scope.run(prompts())
    finally:
        del ALL_ATTENTION_FUNCTIONS[NAME]


def test_an_implementation_switched_inside_attach_is_noticed(scope):
    with scope.attach(identity):
        scope.model.config._attn_implementation_internal = "eager"
        with pytest.raises(TapError, match="exactly one call in each of the 2"):
            scope.run(prompts())
    assert scope.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(implementation, fails):
    model = llama()
    model.set_attn_implementation(implementation)
    scope = HFScope(model)

    def body() -> None:
        with scope.attach(identity, lambda *_: None):
            assert model.config._attn_implementation == NAME
            scope.run(prompts())
            if fails:
                raise KeyError("on purpose")

    if fails:
        with pytest.raises(KeyError):
            body()
    else:
        body()
    assert model.config._attn_implementation == implementation
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(module in sessions for module in model.modules())


def test_two_scopes_of_one_model_cannot_attach_together():
    model = llama()
    first, second = HFScope(model), HFScope(model)
    with first.attach(identity), pytest.raises(TapError, match="attached already"), second.attach(identity):
        pass
    with second.attach(identity):
        second.run(prompts())


def test_no_tensor_of_two_lengths_is_made(scope):
    """The mask stays [B, Tk]: nothing in the model has two axes of length T."""
    t = 211

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for value in tree_flatten(out)[0]:
                if isinstance(value, Tensor):
                    assert list(value.shape).count(t) < 2, f"{func} makes {tuple(value.shape)}"
            return out

    for padded in (False, True):
        with scope.attach(zeros), Watch():
            scope.run(prompts(t, padded))


def test_run_makes_no_vocabulary_sized_tensor(scope):
    widths: list[int] = []
    scope.model.lm_head.register_forward_hook(lambda *_: widths.append(1))
    scope.run(prompts())
    assert not widths


def test_last_block_output_is_before_the_final_norm(scope):
    seen: dict[tuple[int, str], Tensor] = {}
    with scope.attach(residual=lambda layer, site, x: seen.__setitem__((layer, site), x)):
        hidden = scope.model(prompts().input_ids, output_hidden_states=True).hidden_states
    assert torch.equal(seen[0, "block_input"], hidden[0])
    assert torch.equal(seen[1, "block_input"], hidden[1])
    assert torch.equal(scope.model.model.norm(seen[1, "block_output"]), hidden[2])


def test_extra_keyword_arguments_are_refused_by_name(scope):
    ids = prompts().input_ids
    with scope.attach(identity):
        with pytest.raises(UnsupportedModelError, match="the argument strange"):
            scope.model(ids, strange=torch.ones(3))
        with pytest.raises(UnsupportedModelError, match="packed in one row"):
            scope.model(ids, cu_seq_lens_q=torch.tensor([0, 3, 7], dtype=torch.int32))
        scope.model(ids, strange=None, output_attentions=False)


def test_packed_positions_are_refused(scope):
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    with scope.attach(identity), pytest.raises(UnsupportedModelError, match="packed in one row"):
        scope.model(prompts().input_ids[:1], position_ids=positions, use_cache=False)


def test_masks_of_single_pairs_are_refused(scope):
    mask = torch.zeros(2, 1, 7, 7)
    with scope.attach(identity), pytest.raises(UnsupportedModelError, match=r"\(2, 1, 7, 7\)"):
        scope.model(prompts().input_ids, attention_mask=mask)


def test_static_caches_are_refused(scope, cache_argument):
    cache = transformers.StaticCache(scope.model.config, max_cache_len=32)
    with scope.attach(identity), pytest.raises(UnsupportedModelError, match="DynamicCache"), torch.no_grad():
        scope.model(prompts().input_ids, use_cache=True, **{cache_argument(scope.model): cache})


def test_attention_dropout_in_training_asks_for_eval():
    model = llama(attention_dropout=0.1).train()
    with pytest.raises(UnsupportedModelError, match=r"model\.eval\(\)"):
        HFScope(model)
    scope = HFScope(model.eval())
    model.train()
    with pytest.raises(UnsupportedModelError, match=r"dropout 0\.1"), scope.attach(identity):
        scope.run(prompts())


def test_masks_and_modules_that_disagree_are_refused():
    model = llama()
    model.model.layers[1].self_attn.is_causal = False
    with pytest.raises(UnsupportedModelError, match=r"causal=True.*causal=False"):
        HFScope(model)
    model = llama()
    forward = model.model.layers[0].self_attn.forward
    model.model.layers[0].self_attn.forward = lambda *args, **kwargs: forward(*args, sliding_window=3, **kwargs)
    with pytest.raises(UnsupportedModelError, match=r"window=None.*window=3"):
        HFScope(model)


def test_chunked_masks_are_refused_also_without_the_name(monkeypatch):
    monkeypatch.setattr(_refusals, "REFUSED", {})
    options = {**SIZES, "head_dim": 8, "num_local_experts": 2, "attention_chunk_size": 4}
    model = transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**options))
    with pytest.raises(UnsupportedModelError, match="a chunked attention mask"):
        HFScope(model)


@pytest.mark.parametrize("kind", ["deepseek_v32", "gpt_neo", "codegen", "glm_moe_dsa"])
def test_more_families_refused_by_name(kind):
    with pytest.raises(UnsupportedModelError, match=f"{kind}.*found"):
        _refusals.refuse_by_name(SimpleNamespace(model_type=kind))


def test_a_module_that_serves_several_layers_is_refused():
    sizes = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
    with pytest.raises(UnsupportedModelError, match="calls twice"):
        HFScope(transformers.AlbertForMaskedLM(transformers.AlbertConfig(**sizes, embedding_size=16)).eval())


def test_a_layer_that_never_calls_is_named(monkeypatch):
    model = llama()
    attention = model.model.layers[1].self_attn
    attention.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(UnsupportedModelError, match=r"layers \[1\] of 2"):
        HFScope(model)


def interface_call(module: nn.Module | None = None, **options: Any) -> AttentionCall:
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 1, 5, 4)
    module = module or SimpleNamespace(is_causal=True)  # type: ignore[assignment]
    mask = options.pop("attention_mask", None)
    return normalise(module, 3, q, k, k, mask, {"dropout": 0.0, "scaling": 0.5, **options})  # type: ignore[arg-type]


def test_normalise_reads_every_field():
    sinks = torch.randn(2)
    call = interface_call(sliding_window=4, softcap=30.0, s_aux=sinks.reshape(1, 2, 1, 1))
    assert (call.layer, call.scale, call.causal, call.window, call.softcap, call.offset) == (3, 0.5, True, 4, 30.0, 2)
    assert torch.equal(call.sink_logits, sinks)
    assert interface_call(scaling=None).scale == 0.5
    assert interface_call(is_causal=True, module=nn.Identity()).causal
    assert not interface_call(is_causal=False).causal
    mask = torch.tensor([[1, 0, 0, 1, 1, 1, 1]])
    assert interface_call(attention_mask=mask).key_valid.tolist() == [[False, True, True, True, True]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"position_bias": torch.ones(1, 2, 3, 5)}, "position_bias"),
        ({"indices": torch.ones(1, 3, 2)}, "sparse choice"),
        ({"head_mask": torch.ones(2)}, "head_mask"),
        ({"temperature": 2.0}, "temperature=2.0"),
        ({"module": nn.Identity()}, "is_causal"),
        ({"attention_mask": torch.ones(1, 3)}, r"\[1, 5\]"),
        ({"dropout": 0.1}, "eval"),
    ],
)
def test_normalise_refuses_what_it_cannot_say(options, said):
    with pytest.raises(UnsupportedModelError, match=said):
        interface_call(**options)


def test_mask_kinds_are_read_from_transformers_own_functions():
    from transformers import masking_utils as masks

    kind = _masks.MaskKind
    assert _masks.read_kind(masks.causal_mask_function) == kind(True)
    assert _masks.read_kind(masks.bidirectional_mask_function) == kind(False)
    assert _masks.read_kind(masks.sliding_window_causal_mask_function(5)) == kind(True, 5)
    assert _masks.read_kind(masks.sliding_window_bidirectional_mask_function(5)) == kind(False, 6)
    for strange in (lambda b, h, q, k: True, masks.or_masks(masks.causal_mask_function), print):
        with pytest.raises(UnsupportedModelError, match="attention mask"):
            _masks.read_kind(strange)


def test_mask_interface_calls_of_an_unknown_form_are_refused():
    with pytest.raises(UnsupportedModelError, match="this release does not know"):
        _masks.tap_mask(1, 2, 3)


def test_projection_refusals():
    attention = nn.Module()
    model = nn.ModuleDict({"attn": attention})

    def split() -> Tensor:
        return split_projection(model, attention, 2, 4, 6)

    with pytest.raises(UnsupportedModelError, match="no output projection"):
        split()
    attention.o_proj = nn.Linear(8, 6)
    assert split().shape == (2, 4, 6)
    z = torch.randn(2, 4)
    assert torch.allclose(torch.einsum("hd,hdm->m", z, split()), z.flatten() @ attention.o_proj.weight.T)
    attention.o_proj.weight = nn.Parameter(torch.zeros(6, 8, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UnsupportedModelError, match="not quantised"):
        split()
    attention.o_proj = nn.Linear(8, 6)
    attention.attn_sub_norm = nn.LayerNorm(8)
    with pytest.raises(UnsupportedModelError, match="a norm over all heads"):
        split()


def test_residual_hooks_refuse_other_shapes(scope):
    scope.info = scope.info.model_copy(update={"d_model": 99})
    with pytest.raises(UnsupportedModelError, match=r"block_input of layer 0.*99"), scope.attach(residual=print):
        scope.run(prompts())


def test_left_padding_needs_position_ids(scope):
    class Plain(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> None:
            raise NotImplementedError

    from attnscope.models._inputs import batch_inputs

    device = torch.device("cpu")
    assert set(batch_inputs(Plain(), prompts(), device)) == {"input_ids"}
    with pytest.raises(UnsupportedModelError, match="position_ids"):
        batch_inputs(Plain(), prompts(padded=True), device)
    inputs = batch_inputs(scope.model, prompts(padded=True), device)
    assert inputs["position_ids"][0].tolist() == [0, 0, 0, 1, 2, 3, 4]


def test_left_padding_is_refused_where_recurrent_layers_would_read_it():
    sizes = {key: value for key, value in SIZES.items() if key != "max_position_embeddings"}
    config = transformers.RecurrentGemmaConfig(**sizes, head_dim=8, attention_window_size=8)
    assert config.model_type == "recurrent_gemma"
    from attnscope.models._inputs import batch_inputs

    module = SimpleNamespace(config=config, forward=lambda input_ids, attention_mask, position_ids: None)
    with pytest.raises(UnsupportedModelError, match="recurrent layers that read padding"):
        batch_inputs(module, prompts(padded=True), torch.device("cpu"))  # type: ignore[arg-type]


def test_offloaded_weights_run_and_their_projection_is_refused(scope):
    from accelerate import cpu_offload

    batch = prompts(padded=True)
    offloaded = HFScope(cpu_offload(llama(), execution_device=torch.device("cpu")))
    with offloaded.attach(identity):
        found = offloaded.logits(batch)
    assert torch.allclose(found[batch.valid], scope.logits(batch)[batch.valid], atol=1e-5)
    assert offloaded.info.device == "cpu"
    with pytest.raises(UnsupportedModelError, match="offloaded"):
        offloaded.output_projection(0)


def test_verify_notices_a_tap_in_the_wrong_place(scope, monkeypatch):
    verify(scope)
    right = scope.output_projection
    monkeypatch.setattr(scope, "output_projection", lambda layer: right(layer).flip(0))
    with pytest.raises(TapError, match="ablating L0H0"):
        verify(scope)
