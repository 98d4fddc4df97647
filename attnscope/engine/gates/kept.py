"""What is left of a model's answers when only the heads with the largest gates stay full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...analyses.gates import full_heads
from ...core.ids import HeadId
from ...core.model_info import ModelInfo
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


def streaming_heads(info: ModelInfo, full: np.ndarray) -> tuple[HeadId, ...]:
    """Return the query heads of the KV heads that do not stay full.

    Args:
        info: the model.
        full: `[L, G]` bool.

    Example:
        >>> import attnscope
        >>> streaming_heads(attnscope.load(backend="toy").info, np.array([[True, False], [True, True]]))
        (L0H2, L0H3)
    """
    return tuple(head for head in info.heads if not full[info.rows[head.layer], info.kv_head(head.head)])


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
    heads = streaming_heads(scope.info, full)
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
        StatisticsError: see `analyses.gates.full_heads`.
        TaskError: unfit prompts.

    Example:
        >>> kept_accuracy(scope, needles, gates, 0.25, sinks=4, recent=64).accuracy  # doctest: +SKIP
        1.0
    """
    chosen = full_heads(gates, budget)
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
