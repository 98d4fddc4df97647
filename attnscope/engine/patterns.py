"""Vertical-and-slash statistics: how much of each head's attention a few columns and a few diagonals hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from attnscope_kernels import AttentionCall, Result, attention_tile

from ..core import statistics
from ..core.errors import TaskError
from ..core.names import Variable
from .batches import PromptSet, check_prompts, fingerprint, make_batch
from .forward import forward

if TYPE_CHECKING:
    from ..models._base import Scope

LAST_QUERIES = 64
BUDGET = 1 / 8
"""Columns and diagonals together, as a share of the tokens."""
SPLITS = (1 / 16, 1 / 4, 1 / 2, 3 / 4, 15 / 16)
"""Share of the budget that goes to columns."""

MASS = Variable(
    "pattern_mass", ("prompt", "layer", "head", "split"), "1", "attention in columns and diagonals", "2407.02490"
)


def vertical_slash(
    scope: Scope,
    prompts: PromptSet,
    *,
    budget: float = BUDGET,
    splits: Sequence[float] = SPLITS,
    implementation: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Return how much attention of the last queries lies in the best columns and diagonals (2407.02490).

    The sums over the last 64 queries choose the columns and the diagonals, as MInference does at run time; every
    split of the budget between the two is measured, and each head keeps the best. No T×T matrix is formed.

    Args:
        scope: a loaded causal model.
        prompts: of one length, with a column `input_ids`.
        budget: columns and diagonals together, over the tokens, 0..1.
        splits: shares of the budget for columns, 0..1.
        implementation: kernel implementation.
        progress: takes prompts done and prompts in all.

    Returns:
        xarray.Dataset: `pattern_mass` (prompt, layer, head, split), 0..1, and of the best split by mean:
        `vertical_slash_mass`, `vertical_size`, `slash_size` (layer, head).

    Raises:
        TaskError: prompts of several lengths, or of fewer than 128 tokens.
        DeviceError: the device ran out of memory.
    """
    lengths = check_prompts(prompts, scope.info.context_length)
    if len(set(lengths)) > 1 or lengths[0] < 2 * LAST_QUERIES:
        raise TaskError(
            "prompts for vertical-and-slash patterns",
            found=f"{min(lengths)} to {max(lengths)} tokens",
            expected=f"one length of at least {2 * LAST_QUERIES}",
        )
    info, tokens = scope.info, lengths[0]
    sizes = [(v := max(1, round(budget * tokens * s)), max(1, round(budget * tokens) - v)) for s in splits]
    mass = np.full((len(prompts), len(info.attention_layers), info.n_heads, len(sizes)), np.nan)
    for prompt in range(len(prompts)):
        batch = make_batch(prompts, [prompt], scope.device)

        def listen(call: AttentionCall, _result: Result, prompt: int = prompt) -> None:
            heads = range(call.q.shape[1])
            tile = attention_tile(call, heads, slice(-LAST_QUERIES, None), slice(None), implementation)[0]
            mass[prompt, info.rows[call.layer]] = pattern_mass(tile.nan_to_num(), sizes).cpu().numpy()

        with forward(scope, batch, implementation=implementation, listen=listen):
            scope.run(batch)
        if progress is not None:
            progress(prompt + 1, len(prompts))
    best = mass.mean(0).argmax(-1)
    table = np.array(sizes)[best]
    values = [
        (MASS, mass),
        (_variable("vertical_slash_mass", "1", "attention in the best columns and diagonals"), mass.mean(0).max(-1)),
        (_variable("vertical_size", "token", "columns of the best split"), table[..., 0]),
        (_variable("slash_size", "token", "diagonals of the best split"), table[..., 1]),
    ]
    attrs = {"tokens_a_prompt": tokens, "budget": budget, "prompts": len(prompts), "fingerprint": fingerprint(prompts)}
    return statistics.dataset(info, values, coords={"split": list(splits)}, attrs=attrs)


def pattern_mass(tile: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Return the share of a tile's attention in its best columns and diagonals.

    Args:
        tile: `[H, N, T]` weights of the last N of T queries.
        sizes: (columns, diagonals) of each split.

    Returns:
        `[H, len(sizes)]`, 0..1.

    Example:
        >>> diagonal = torch.eye(6)[None, 2:]
        >>> pattern_mass(diagonal, [(1, 1)]).tolist()
        [[1.0]]
    """
    h, n, t = tile.shape
    back = (torch.arange(t - n, t, device=tile.device)[:, None] - torch.arange(t, device=tile.device)).clamp(min=0)
    columns = tile.sum(1)
    flat = back.reshape(1, -1).expand(h, -1)
    diagonals = torch.zeros(h, t, device=tile.device, dtype=tile.dtype).scatter_add_(1, flat, tile.reshape(h, -1))
    found = []
    for vertical, slash in sizes:
        kept = torch.zeros(h, t, dtype=torch.bool, device=tile.device)
        kept.scatter_(1, columns.topk(min(vertical, t)).indices, True)
        lines = torch.zeros_like(kept).scatter_(1, diagonals.topk(min(slash, t)).indices, True)
        inside = kept[:, None] | lines[:, back]
        found.append((tile * inside).sum((1, 2)) / tile.sum((1, 2)))
    return torch.stack(found, 1)


def _variable(name: str, units: str, meaning: str) -> Variable:
    return Variable(name, ("layer", "head"), units, meaning, "2407.02490")
