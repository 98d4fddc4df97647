"""Head importance: how fast the loss changes when a head is scaled, from one gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ..core import statistics
from ..core.errors import TaskError, UnsupportedModelError
from ..core.names import Variable
from .attribution.patching import attribute
from .batches import PromptSet
from .sweep.alternatives import Zero

if TYPE_CHECKING:
    from ..models._base import Scope

IMPORTANCE = Variable(
    "importance",
    ("prompt", "layer", "head"),
    "nat",
    "size of the change of the mean next-token loss for each unit of the head's scale",
    "1905.10650",
)


def head_importance(
    scope: Scope,
    prompts: PromptSet,
    *,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Return |Σ z · ∂L/∂z| of every head and prompt, where L is the mean next-token loss (Michel et al., 1905.10650).

    The sum goes over tokens and the head's dimensions. It is the derivative of the loss by the head's scale at 1: a
    linear estimate of what the loss loses or gains when the head stops, per predicted token; its sign is dropped before
    prompts are averaged. One forward and one backward; no weight gets a gradient.

    Args:
        scope: a loaded transformers model.
        prompts: with a column `input_ids`, at least two tokens each.
        batch_tokens: tokens in a forward at most.
        progress: called with prompts done and prompts in all.

    Returns:
        `importance` `[prompt, layer, head]`, nat.

    Raises:
        TaskError: empty or too long prompts, or one of a single token.
        UnsupportedModelError: no transformers model, or attention without gradients.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 9]]})
        >>> head_importance(attnscope.load(device="cpu"), prompts).importance.shape
        (1, 8, 8)
    """
    if not len(prompts):
        raise TaskError("head importance", found="no prompts", expected="at least one")
    if getattr(scope, "parts", None) is None:
        raise UnsupportedModelError(
            f"head importance of {scope.info.model_id}",
            found=f"backend {scope.info.backend!r}, which gives no gradients",
            expected="a transformers model",
        )
    found = attribute(
        scope, prompts, "head", metric="loss", alternative=Zero(), batch_tokens=batch_tokens, progress=progress
    )
    size = np.abs(found.change).reshape(len(prompts), len(scope.info.attention_layers), scope.info.n_heads)
    return statistics.dataset(
        scope.info, [(IMPORTANCE, size)], attrs={"prompts": len(prompts), "implementation": "torch"}
    )
