"""Greedy next-token accuracy at chosen positions, with or without edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .batches import PromptSet, check_prompts, make_batch, plan
from .forward import forward

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..edits._base import Edit
    from ..models._base import Scope


def token_accuracy(
    scope: Scope,
    prompts: PromptSet,
    *,
    edits: Sequence[Edit] = (),
    implementation: str = "auto",
    batch_tokens: int = 8192,
) -> np.ndarray:
    """Return, a prompt, the share of its `target_ids` that are the model's most likely token at `query_positions`.

    Args:
        scope: a loaded model.
        prompts: with columns `input_ids`, `query_positions`, `target_ids`.
        edits: interventions that act during the forward pass.

    Returns:
        `[prompts]` float64, range 0..1.

    Raises:
        TaskError: empty or too long prompts, or a column is missing.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict(
        ...     {"input_ids": [[0, 5, 7]], "query_positions": [[1]], "target_ids": [[7]]})
        >>> token_accuracy(attnscope.load(backend="toy"), prompts).shape
        (1,)
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    share = np.full(len(prompts), np.nan)

    for group in plan(lengths, batch_tokens):
        batch = make_batch(prompts, group, scope.device)
        share[group] = batch_accuracy(scope, batch, edits=edits, implementation=implementation)
    return share


def batch_accuracy(
    scope: Scope, batch: Batch, *, edits: Sequence[Edit] = (), implementation: str = "auto"
) -> np.ndarray:
    """Return the same of one batch, `[B]` in its order.

    Raises:
        TaskError: a column is missing.
        DeviceError: the device ran out of memory.
    """
    queries, targets = batch.column("query_positions", "accuracy"), batch.column("target_ids", "accuracy")
    with forward(scope, batch, edits, implementation=implementation):
        guesses = scope.logits(batch).argmax(-1).cpu()
    starts = batch.starts.tolist()
    places = [torch.tensor(queries[b]) + start for b, start in enumerate(starts)]
    hits = [guesses[b, place] == torch.tensor(targets[b]) for b, place in enumerate(places)]
    return np.array([float(hit.double().mean()) for hit in hits])
