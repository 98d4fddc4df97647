"""Needle accuracy under budgets of full KV heads: ours, random choices, all full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import TaskError
from ..core.retrieval_report import BudgetPoint
from ..engine.answers import answer_scores
from ..reports.retrieval import budget_point
from .memory import cache_tokens
from .roles import RECENT_TOKENS, SINK_TOKENS, KVRoles

if TYPE_CHECKING:
    from ..edits._base import Edit
    from ..engine.batches import PromptSet
    from ..models._base import Scope
    from .streaming import Prefill

BUDGETS = (0.0625, 0.125, 0.25, 0.5)


@dataclass(frozen=True)
class BudgetPlan:
    """What is measured.

    Attributes:
        budgets: shares of full KV heads, each 0..1.
        draws: random choices at each budget; every prompt runs under every one of them.
        exclude_ours: whether random choices leave out the heads that we keep full at the same budget.
        sink_tokens: that streaming heads keep.
        recent_tokens: likewise.
        prefill: see `decoding.streaming`.
        seed: of the draws.

    Raises:
        TaskError: no budgets, or no draws.
    """

    budgets: tuple[float, ...] = BUDGETS
    draws: int = 20
    exclude_ours: bool = False
    sink_tokens: int = SINK_TOKENS
    recent_tokens: int = RECENT_TOKENS
    prefill: Prefill = "dense"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budgets or self.draws < 1:
            found = f"{len(self.budgets)} budgets and {self.draws} draws"
            raise TaskError("accuracy under budgets", found=found, expected="at least one of each")

    def ours(self, scores: Sequence[np.ndarray], budget: float) -> KVRoles:
        """Return our choice at a budget."""
        return KVRoles.from_scores(scores, budget, self.sink_tokens, self.recent_tokens)

    def random(self, shape: tuple[int, int], budget: float, draw: int, ours: KVRoles) -> KVRoles:
        """Return one random choice at a budget."""
        taken = ours.full if self.exclude_ours else None
        seed = self.seed * 1_000_003 + draw * 1009 + self.budgets.index(budget)
        return KVRoles.random(shape, budget, seed, taken, self.sink_tokens, self.recent_tokens)


def budget_accuracy(
    scope: Scope,
    prompts: PromptSet,
    scores: Sequence[np.ndarray],
    plan: BudgetPlan | None = None,
    *,
    implementation: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> list[BudgetPoint]:
    """Return, at each budget, the accuracy with the best KV heads full, with random ones, and with all.

    The scores must come from other prompts than these.

    Args:
        scope: a loaded transformers model.
        prompts: needles of one length, as `tasks.needle` makes them.
        scores: `[L, G]` of KV heads, larger = rather full; the later ones break ties.
        plan: what is measured.
        implementation: kernel implementation.
        progress: called with prompts done and prompts in all.
        checkpoint: a file to go on from after an interruption.

    Raises:
        TaskError: a budget out of range, prompts of several lengths, or too few KV heads to draw from.
        UnknownHeadError: scores of another model's shape.

    Example:
        >>> import attnscope
        >>> from attnscope.tasks.needle import Needle
        >>> scope = attnscope.load(device="cpu")
        >>> needles = Needle(n=2, length=128).build(scope.tokenizer)
        >>> points = budget_accuracy(scope, needles, [np.eye(8, 4)], BudgetPlan((0.25,), draws=2, recent_tokens=256))
        >>> [(len(point.full), point.accuracy.value, point.control_draws) for point in points]
        [(8, 1.0, (1.0, 1.0))]
    """
    plan = plan or BudgetPlan()
    info, shape = scope.info, scores[0].shape
    lengths = {len(ids) + len(answer) for ids, answer in zip(prompts["input_ids"], prompts["answer_ids"], strict=True)}
    if len(lengths) != 1:
        raise TaskError("needles", found=f"{len(lengths)} lengths", expected="one; call it once a length")
    length = lengths.pop()
    ours = [plan.ours(scores, budget).check(info) for budget in plan.budgets]
    drawn = [
        [plan.random(shape, budget, draw, own) for draw in range(plan.draws)]
        for budget, own in zip(plan.budgets, ours, strict=True)
    ]
    treatments: list[Sequence[Edit]] = [(), *(roles.edits(info) for roles in [*ours, *chain.from_iterable(drawn)])]
    right = answer_scores(
        scope,
        prompts,
        lambda prompt: treatments,
        prefill="dense" if plan.prefill == "dense" else "edited",
        implementation=implementation,
        progress=progress,
        checkpoint=checkpoint,
    ).right
    n = len(plan.budgets)
    random = right[:, 1 + n :].reshape(len(right), n, plan.draws)
    everything = KVRoles(np.ones(shape, dtype=bool), plan.sink_tokens, plan.recent_tokens)
    return [
        budget_point(
            length,
            budget,
            [f"L{info.attention_layers[row]}G{kv_head}" for row, kv_head in np.argwhere(roles.full).tolist()],
            right[:, 1 + i],
            right[:, 0],
            random[:, i].T,
            cache_tokens(roles, length) / cache_tokens(everything, length),
        )
        for i, (budget, roles) in enumerate(zip(plan.budgets, ours, strict=True))
    ]
