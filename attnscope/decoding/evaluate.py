"""Needle accuracy under budgets of full KV heads: ours, random choices, all full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..analyses.budget_accuracy import budget_row
from ..core.decode_report import BudgetRow
from ..core.errors import TaskError
from ..engine.answers import answer_scores
from .memory import cache_tokens
from .roles import RECENT_TOKENS, SINK_TOKENS, KVRoles

if TYPE_CHECKING:
    from ..edits._base import Edit
    from ..engine.batches import PromptSet
    from ..models._base import Scope
    from .streaming import Prefill

BUDGETS = (0.0625, 0.125, 0.25, 0.5, 1.0)


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
) -> list[BudgetRow]:
    """Return a row for all full, and at each budget below 1 one for ours and one for random choices.

    The scores must come from other prompts than these.

    Args:
        scope: a loaded transformers model.
        prompts: needles of one length, as `tasks.needle` makes them.
        scores: `[L, G]` of KV heads, larger = rather full; the later ones break ties.
        plan: what is measured.
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
        >>> rows = budget_accuracy(scope, needles, [np.eye(8, 4)], BudgetPlan((0.25,), draws=2, recent_tokens=256))
        >>> [(row.choice, row.n_full, row.accuracy.value) for row in rows]
        [('all full', 32, 1.0), ('ours', 8, 1.0), ('random', 8, 1.0)]
    """
    plan = plan or BudgetPlan()
    info, shape = scope.info, scores[0].shape
    lengths = {len(ids) + len(answer) for ids, answer in zip(prompts["input_ids"], prompts["answer_ids"], strict=True)}
    if len(lengths) != 1:
        raise TaskError("needles", found=f"{len(lengths)} lengths", expected="one; call it once a length")
    length = lengths.pop()
    budgets = [budget for budget in plan.budgets if budget < 1]
    ours = [plan.ours(scores, budget).check(info) for budget in budgets]
    drawn = [[plan.random(shape, b, draw, o) for draw in range(plan.draws)] for b, o in zip(budgets, ours, strict=True)]

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
    baseline, of_ours = right[:, 0], right[:, 1 : 1 + len(budgets)]
    of_random = right[:, 1 + len(budgets) :].reshape(len(right), len(budgets), plan.draws)
    everything = KVRoles(np.ones(shape, dtype=bool), plan.sink_tokens, plan.recent_tokens)

    def row(choice: str, budget: float, roles: KVRoles, flags: np.ndarray) -> BudgetRow:
        kept = cache_tokens(roles, length) / cache_tokens(everything, length)
        return budget_row(choice, length, budget, int(roles.full.sum()), kept, flags, baseline)

    rows = [row("all full", 1.0, everything, baseline[:, None])]
    for i, budget in enumerate(budgets):
        rows.append(row("ours", budget, ours[i], of_ours[:, i : i + 1]))
        rows.append(row("random", budget, drawn[i][0], of_random[:, i]))
    return rows
