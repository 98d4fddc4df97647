"""Head importance against finite differences of a head's scale."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch

import attnscope
from attnscope.core.errors import TaskError, UnsupportedModelError
from attnscope.core.ids import HeadId
from attnscope.edits.scale_head import ScaleHead
from attnscope.engine.batches import make_batch
from attnscope.engine.edited import edited
from attnscope.engine.importance import head_importance

PROMPTS = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 9, 5, 7], [0, 11, 4, 8, 3, 11]]})
STEP = 0.02


def losses(scope, edits) -> np.ndarray:
    batch = make_batch(PROMPTS, range(len(PROMPTS)), scope.device)
    with edited(scope, edits, batch), torch.no_grad():
        logits = scope.logits(batch).double().log_softmax(-1)
    ids = torch.tensor(PROMPTS["input_ids"])[:, 1:, None]
    return -logits[:, :-1].gather(2, ids)[..., 0].mean(1).numpy()


@pytest.mark.parametrize("head", [HeadId(0, 0), HeadId(3, 5), HeadId(7, 2)])
def test_it_is_the_slope_of_the_loss_over_the_heads_scale(head: HeadId) -> None:
    scope = attnscope.load(device="cpu")
    before = [weight.requires_grad for weight in scope.model.parameters()]
    found = head_importance(scope, PROMPTS).importance
    up, down = (losses(scope, [ScaleHead((head,), 1 + step)]) for step in (STEP, -STEP))
    slope = abs(up - down) / (2 * STEP)
    np.testing.assert_allclose(found.sel(layer=head.layer, head=head.head), slope, rtol=0.02, atol=2e-5)
    assert slope.min() > 0
    assert found.units == "nat"
    assert [weight.requires_grad for weight in scope.model.parameters()] == before
    assert all(weight.grad is None for weight in scope.model.parameters())


def test_weights_that_want_gradients_get_none_and_still_want_them() -> None:
    scope = attnscope.load(device="cpu")
    for weight in scope.model.parameters():
        weight.requires_grad_(True)
    wanted = head_importance(attnscope.load(device="cpu"), PROMPTS).importance
    np.testing.assert_allclose(head_importance(scope, PROMPTS).importance, wanted, rtol=1e-4, atol=1e-7)
    assert all(weight.requires_grad and weight.grad is None for weight in scope.model.parameters())


def test_what_cannot_be_measured_is_refused_in_words() -> None:
    with pytest.raises(UnsupportedModelError, match="transformers model"):
        head_importance(attnscope.load(backend="toy"), PROMPTS)
    with pytest.raises(TaskError, match="no prompts"):
        head_importance(attnscope.load(device="cpu"), PROMPTS.select([]))
