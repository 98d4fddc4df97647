"""Ablate some heads together, and as many random other heads of the same layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.ids import HeadId
from ..core.model_info import ModelInfo
from ..edits._base import Edit
from ..edits.ablate_head import AblateHead


@dataclass(frozen=True, eq=False)
class Ablations:
    """A metric under ablation.

    Attributes:
        baseline: `[prompts]` without edits.
        ablated: `[prompts]` with the heads zero-ablated.
        controls: `[draws, prompts]` with random other heads zero-ablated; no draws where too few others exist.
        layer_matched: whether every control took its heads from the same layers.
    """

    baseline: np.ndarray
    ablated: np.ndarray
    controls: np.ndarray
    layer_matched: bool


def ablate_with_control(
    info: ModelInfo,
    heads: Sequence[HeadId],
    measure: Callable[[Sequence[Edit]], np.ndarray],
    *,
    draws: int = 10,
    seed: int = 0,
) -> Ablations:
    """Measure the model whole, without the heads, and without random others; the controls exclude the heads.

    Args:
        heads: query heads under test.
        measure: edits → `[prompts]` metric.
        draws: random sets of other heads.
        seed: of the draws.

    Raises:
        UnknownHeadError: no heads, or the model lacks one.
    """
    tested = [info.check(head) for head in heads]
    chooser = np.random.default_rng(seed)
    drawn = [random_others(info, tested, chooser) for _ in range(draws)]
    baseline = measure([])
    controls = [measure([AblateHead(tuple(others))]) for others, _ in drawn if others]
    return Ablations(
        baseline,
        measure([AblateHead(tuple(tested))]),
        np.array(controls).reshape(len(controls), len(baseline)),
        all(matched for _, matched in drawn),
    )


def random_others(
    info: ModelInfo, heads: Sequence[HeadId], chooser: np.random.Generator, excluded: Collection[HeadId] = ()
) -> tuple[list[HeadId], bool]:
    """Draw as many other heads of the same layers, or of the nearest where these hold too few (the flag is then False).

    Depth matters: a head of another depth may feed the heads under test, and is no control for them. Returns an empty
    list where the model has too few heads that are neither under test nor excluded.
    """
    free = {layer: [h for h in info.heads if h.layer == layer and h not in {*heads, *excluded}] for layer in info.rows}
    if sum(map(len, free.values())) < len(heads):
        return [], False
    drawn: list[HeadId] = []
    matched = True
    for layer, count in sorted(Counter(head.layer for head in heads).items()):
        wanted = count
        for near in sorted(free, key=lambda other: (abs(other - layer), other)):
            pool = free[near]
            taken = [pool[i] for i in chooser.choice(len(pool), min(wanted, len(pool)), replace=False)] if pool else []
            free[near] = [head for head in pool if head not in taken]
            drawn += taken
            wanted -= len(taken)
            matched &= near == layer or not taken
            if not wanted:
                break
    return drawn, matched
