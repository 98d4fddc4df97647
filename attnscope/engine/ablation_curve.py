"""Ablate more and more of a ranking of heads, beside as many random others: the curve of 2404.15574."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..core.ids import HeadId
from ..edits._base import Edit
from ..edits.ablate_head import AblateHead
from ..edits.uniform_attention import UniformAttention
from .ablations import random_others

if TYPE_CHECKING:
    from ..core.model_info import ModelInfo

Mode = Literal["zero", "uniform"]
COUNTS = (1, 2, 4, 8, 16)
EDITS: dict[Mode, type[AblateHead] | type[UniformAttention]] = {"zero": AblateHead, "uniform": UniformAttention}


@dataclass(frozen=True, eq=False)
class CurveStep:
    """A metric without the first k heads of a ranking.

    Attributes:
        mode: `zero` silences a head, `uniform` makes it look everywhere alike.
        heads: the first k.
        ablated: `[prompts]`.
        controls: `[draws, prompts]` without k random others; no draws where there are too few others.
        layer_matched: whether every control took its heads from the same layers.
    """

    mode: Mode
    heads: tuple[HeadId, ...]
    ablated: np.ndarray
    controls: np.ndarray
    layer_matched: bool


def ablation_curve(
    info: ModelInfo,
    ranking: Sequence[HeadId],
    measure: Callable[[Sequence[Edit]], np.ndarray],
    *,
    excluded: Sequence[HeadId] = (),
    counts: Sequence[int] = COUNTS,
    modes: Sequence[Mode] = ("zero", "uniform"),
    draws: int = 5,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[CurveStep]:
    """Measure without the first 1, 2, 4, … heads, and without as many random others.

    Args:
        info: the model.
        ranking: query heads, the first to go first.
        measure: edits → `[prompts]` metric.
        excluded: heads that no control may take, beside those under test; a control that holds some of the function
            under test is none.
        counts: how many heads go; those above the ranking's length are left out.
        modes: how a head is ablated.
        draws: random controls of each step.
        seed: of the draws.
        progress: takes measurements done and measurements in all.

    Raises:
        UnknownHeadError: no heads, or the model lacks one.
    """
    ranked = [info.check(head) for head in ranking]
    steps = [count for count in counts if count <= len(ranked)]
    done, total = 0, len(modes) * len(steps) * (1 + draws)

    def measured(edit: Edit) -> np.ndarray:
        nonlocal done
        values = measure([edit])
        done += 1
        if progress is not None:
            progress(done, total)
        return values

    found = []
    for mode in modes:
        for count in steps:
            heads = tuple(ranked[:count])
            chooser = np.random.default_rng((seed, count))
            drawn = [random_others(info, heads, chooser, {*excluded}) for _ in range(draws)]
            ablated = measured(EDITS[mode](heads))
            controls = [measured(EDITS[mode](tuple(others))) for others, _ in drawn if others]
            stacked = np.array(controls).reshape(len(controls), len(ablated))
            found.append(CurveStep(mode, heads, ablated, stacked, all(matched for _, matched in drawn)))
    return found
