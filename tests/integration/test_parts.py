"""What a block adds to the residual stream, and what its norms read, in every architecture that shows it."""

from __future__ import annotations

import pytest
import torch
from test_architectures import DECODERS
from torch import Tensor

from attnscope.core.batch import Batch
from attnscope.core.errors import UnsupportedModelError
from attnscope.models._base import Site
from attnscope.models._loading import load
from attnscope.models.hf import HFScope

REFUSED = {"opt": "attention and MLP whose outputs", "olmo2": "a norm that reads the residual stream before attention"}
ONE_NORM = ("cohere2",)
T = 9
SITES: tuple[Site, ...] = ("block_input", "attention_output", "mlp_output", "block_output")


def batch() -> Batch:
    ids = torch.arange(3, 3 + T)[None]
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), (0,), 1)


def read(scope: HFScope, sites: tuple[Site, ...]) -> dict[tuple[int, str], Tensor]:
    seen: dict[tuple[int, str], Tensor] = {}

    def tap(layer: int, site: Site, x: Tensor) -> None:
        seen[layer, site] = x.detach().clone()

    with torch.no_grad(), scope.attach(residual=tap, sites=sites):
        scope.run(batch())
    return seen


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "opt"])
def test_a_blocks_writes_add_up_to_its_output(name: str) -> None:
    scope = HFScope(DECODERS[name]())
    seen = read(scope, SITES)
    for layer in range(scope.info.n_layers):
        total = seen[layer, "block_input"] + seen[layer, "attention_output"] + seen[layer, "mlp_output"]
        torch.testing.assert_close(total, seen[layer, "block_output"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in DECODERS if name not in (*REFUSED, *ONE_NORM)])
def test_norms_read_the_residual_stream(name: str) -> None:
    scope = HFScope(DECODERS[name]())
    seen = read(scope, (*SITES, "attention_norm_input", "mlp_norm_input", "final_norm_input"))
    last = scope.info.n_layers - 1
    parallel = torch.equal(seen[0, "mlp_norm_input"], seen[0, "block_input"])
    for layer in range(scope.info.n_layers):
        torch.testing.assert_close(seen[layer, "attention_norm_input"], seen[layer, "block_input"])
        middle = seen[layer, "block_input"] + (0 if parallel else seen[layer, "attention_output"])
        torch.testing.assert_close(seen[layer, "mlp_norm_input"], middle, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[last + 1, "final_norm_input"], seen[last, "block_output"])


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "gpt2", "cohere2"])
def test_a_write_that_is_removed_is_gone(name: str) -> None:
    scope = HFScope(DECODERS[name]())
    seen: dict[str, Tensor] = {}

    def tap(layer: int, site: Site, x: Tensor) -> Tensor | None:
        if layer == 0:
            seen[site] = x
            return torch.zeros_like(x) if site == "mlp_output" else None
        return None

    with torch.no_grad(), scope.attach(residual=tap, sites=SITES):
        scope.run(batch())
    total = seen["block_input"] + seen["attention_output"]
    torch.testing.assert_close(total, seen["block_output"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_neurons_times_the_down_projection_are_the_mlp(name: str) -> None:
    scope = HFScope(DECODERS[name]())
    seen = read(scope, ("neurons", "mlp_output"))
    for layer, block in enumerate(scope.parts.blocks):
        assert block.down is not None
        torch.testing.assert_close(block.down(seen[layer, "neurons"]), seen[layer, "mlp_output"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_model_lacks_is_said(name: str) -> None:
    scope = HFScope(DECODERS[name]())
    with pytest.raises(UnsupportedModelError, match=REFUSED[name]):
        read(scope, ("attention_output", "attention_norm_input"))
    assert not read(scope, ())


def test_the_toy_model_has_no_norms() -> None:
    with (
        pytest.raises(UnsupportedModelError, match="without norms"),
        load(backend="toy").attach(residual=lambda *_: None, sites=("mlp_norm_input",)),
    ):
        pass
