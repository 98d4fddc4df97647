"""Patches, residual edits, steering and static attention on a CUDA device: the same losses as on the CPU."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import attnscope
from attnscope.core.ids import HeadId
from attnscope.edits.ablate_head import AblateHead
from attnscope.edits.edit_residual import EditResidual
from attnscope.edits.knock_out import KnockOut
from attnscope.edits.patch_head import PatchHead
from attnscope.edits.project_out import ProjectOut
from attnscope.edits.resample_head import ResampleHead
from attnscope.edits.scale_head import ScaleHead
from attnscope.edits.steer import Steer
from attnscope.engine.loss import next_token_loss
from attnscope.engine.recordings import record_heads, record_site
from attnscope.engine.reference import Reference, measure_reference
from attnscope.tasks.text import Text
from attnscope_kernels.testing import forbid_square

if TYPE_CHECKING:
    from attnscope.edits._base import Edit
    from attnscope.models._base import Scope

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

HEADS = (HeadId(0, 1), HeadId(3, 1), HeadId(7, 0), HeadId(7, 5))
NAMES = ("patch", "patch_some", "resample", "mean", "mean_by_position", "static", "mlp_patch", "mlp_mean", "neurons")
NAMES += ("steer", "knock_out")


@lru_cache(maxsize=2)
def pocket(device: str) -> Scope:
    return attnscope.load(device=device, dtype="float32")


@lru_cache(maxsize=2)
def prompts(part: int = 0) -> Any:
    return Text(n=6, length=211).build(pocket("cpu").tokenizer).select(range(3 * part, 3 * part + 3))


@lru_cache(maxsize=2)
def reference(device: str) -> Reference:
    return measure_reference(pocket(device), prompts(1), sites=["mlp_output"], by_position=True)


def edits(device: str) -> dict[str, list[Edit]]:
    scope = pocket(device)
    z = record_heads(scope, prompts(1), HEADS, device="cpu" if device == "cpu" else None)
    mlp = record_site(scope, prompts(1), "mlp_output", [2, 5], dtype=None)
    made = reference(device)
    some = PatchHead(HEADS, z, {0: (3, 100), 2: (7,)})
    direction = torch.linspace(-1, 1, scope.info.d_model)
    return {
        "patch": [PatchHead(HEADS, z)],
        "patch_some": [AblateHead(HEADS), some, ScaleHead(HEADS[:2], 2.0, (100,))],
        "resample": [ResampleHead(HEADS, z, same_set=False)],
        "mean": [made.mean_ablation(HEADS)],
        "mean_by_position": [PatchHead(HEADS, made.by_position["z"])],
        "static": [made.static_attention(HEADS)],
        "mlp_patch": [EditResidual("mlp_output", (2, 5), "patch", (4, 50, 150), source=mlp)],
        "mlp_mean": [EditResidual("mlp_output", (3,), "mean", values=made.sites["mlp_output"])],
        "neurons": [EditResidual("neurons", (1, 6), "zero", columns=tuple(range(0, 600, 3)))],
        "steer": [Steer(direction, 5.0, (2,), (30, 31)), ProjectOut(direction, (4,))],
        "knock_out": [KnockOut({0: (0, 5), 1: (2,)}, {0: (60, 61), 1: (100,)}, layers=(2, 3, 4))],
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("implementation", ["triton", "tiled"])
def test_losses_are_those_of_the_cpu(name: str, implementation: str) -> None:
    there = next_token_loss(pocket("cuda"), prompts(), edits=edits("cuda")[name], implementation=implementation)
    here = next_token_loss(pocket("cpu"), prompts(), edits=edits("cpu")[name])
    np.testing.assert_allclose(there, here, atol=2e-3)
    assert np.abs(here - next_token_loss(pocket("cpu"), prompts())).max() > 1e-4


def test_references_are_those_of_the_cpu() -> None:
    there, here = reference("cuda"), reference("cpu")
    for layer in range(8):
        torch.testing.assert_close(there.heads[layer].cpu(), here.heads[layer], atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(there.weights[layer].cpu(), here.weights[layer], atol=2e-3, rtol=2e-2)


def test_a_recording_on_the_host_serves_the_device() -> None:
    scope = pocket("cuda")
    kept = [record_heads(scope, prompts(1), HEADS, device=device) for device in ("cpu", "cuda")]
    losses = [next_token_loss(scope, prompts(), edits=[PatchHead(HEADS, one, (5, 80))]) for one in kept]
    np.testing.assert_allclose(*losses, atol=1e-5)


def test_no_square() -> None:
    made = [edit for each in edits("cuda").values() for edit in each]
    with forbid_square(211):
        for edit in made:
            next_token_loss(pocket("cuda"), prompts(), edits=[edit])
