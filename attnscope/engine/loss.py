"""Mean next-token loss of each prompt, with or without edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch.nn.functional import cross_entropy

from .batches import PromptSet, check_prompts, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..edits._base import Edit
    from ..models._base import Scope


def next_token_loss(
    scope: Scope,
    prompts: PromptSet,
    *,
    edits: Sequence[Edit] = (),
    implementation: str = "auto",
    batch_tokens: int = 8192,
) -> np.ndarray:
    """Return the mean next-token loss of each prompt, nats a token; NaN for a prompt of one token.

    Args:
        scope: a loaded model with a vocabulary projection.
        prompts: with a column `input_ids`.
        edits: interventions that act during the forward pass.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.

    Returns:
        `[prompts]` float64, 0 or more; infinite where the model overflows.

    Raises:
        TaskError: empty or too long prompts.
        UnsupportedModelError: no vocabulary projection, or the model lacks a site of an edit.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]]})
        >>> next_token_loss(attnscope.load(backend="toy"), prompts).shape
        (1,)
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    losses = np.full(len(prompts), np.nan)
    for group in plan(lengths, batch_tokens):
        batch = make_batch(prompts, group, scope.device)
        with forward(scope, batch, edits, implementation=implementation):
            logits = scope.logits(batch)
        for row, (prompt, start) in enumerate(zip(group, batch.starts.tolist(), strict=True)):
            stop = start + lengths[prompt]
            targets = batch.input_ids[row, start + 1 : stop].to(logits.device)
            if len(targets):
                own = cross_entropy(logits[row, start : stop - 1].float(), targets).double()
                losses[prompt] = float(own) if not own.isnan() else np.inf
    return losses
