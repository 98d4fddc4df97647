"""What is left of a model's answers when only the heads with the largest gates stay full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...analyses.kv_choice import full_under_budget
from ...edits.stream_window import StreamWindow
from ..accuracy import token_accuracy
from ..batches import PromptSet

if TYPE_CHECKING:
    from ...models._base import Scope


@dataclass(frozen=True, eq=False)
class Kept:
    """Accuracy with some KV heads full and all others streaming.

    Attributes:
        budget: share of KV heads that stay full.
        full: how many these are.
        accuracy: with the heads of the largest gates.
        controls: `[draws]` with as many heads drawn at random.
        excluded: whether the draws left the chosen heads out; where too few others exist they come from all heads.
    """

    budget: float
    full: int
    accuracy: float
    controls: np.ndarray
    excluded: bool


def accuracy_with_streaming(
    scope: Scope, prompts: PromptSet, full: np.ndarray, *, sinks: int, recent: int, **options: Any
) -> np.ndarray:
    """Return `token_accuracy` of each prompt with the other KV heads cut down to sink and recent keys.

    Args:
        scope: a loaded model.
        prompts: see `token_accuracy`.
        full: `[L, G]` bool, the KV heads that keep every key.
        sinks: first keys that the others see.
        recent: last keys that they see.
        options: `implementation` and `batch_tokens` of `token_accuracy`.
    """
    heads = scope.info.query_heads(~full)
    edits = [StreamWindow(heads, sinks, recent)] if heads else []
    return token_accuracy(scope, prompts, edits=edits, **options)


def kept_accuracy(
    scope: Scope,
    prompts: PromptSet,
    gates: np.ndarray,
    budget: float,
    *,
    sinks: int,
    recent: int,
    draws: int = 5,
    seed: int = 0,
    **options: Any,
) -> Kept:
    """Measure accuracy with the heads of the largest gates full, and with as many random ones.

    Args:
        gates: `[L, G]`.
        budget: share of KV heads that stay full.
        draws: random choices.
        seed: of the draws.
        scope, prompts, sinks, recent, options: see `accuracy_with_streaming`.

    Raises:
        TaskError: unfit prompts, or the budget is no share.

    Example:
        >>> kept_accuracy(scope, needles, gates, 0.25, sinks=4, recent=64).accuracy  # doctest: +SKIP
        1.0
    """
    chosen = full_under_budget([gates], budget)
    window = {"sinks": sinks, "recent": recent, **options}
    accuracy = accuracy_with_streaming(scope, prompts, chosen, **window).mean()
    others = np.flatnonzero(~chosen.ravel())
    count = int(chosen.sum())
    excluded = len(others) > count
    sets = random_sets(others if excluded else np.arange(chosen.size), count, draws, seed)
    controls = []
    for drawn in sets:
        full = np.zeros(chosen.size, dtype=bool)
        full[drawn] = True
        controls.append(accuracy_with_streaming(scope, prompts, full.reshape(chosen.shape), **window).mean())
    return Kept(budget, count, float(accuracy), np.array(controls), excluded)


def random_sets(pool: Sequence[int] | np.ndarray, count: int, draws: int, seed: int) -> list[np.ndarray]:
    """Draw sets of `count` members of a pool, each without repetition."""
    chooser = np.random.default_rng(seed)
    return [np.sort(chooser.choice(np.asarray(pool), count, replace=False)) for _ in range(draws)]
