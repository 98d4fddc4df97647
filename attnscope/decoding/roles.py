"""Roles of KV heads in a sparse decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..analyses.kv_choice import budget_count, full_under_budget
from ..core.errors import TaskError, UnknownHeadError
from ..reports.decode_plan import RECENT_TOKENS, SINK_TOKENS, plan_under_budget

if TYPE_CHECKING:
    from ..core.model_info import ModelInfo
    from ..core.report import HeadReport
    from ..edits.stream_window import StreamWindow


@dataclass(frozen=True, eq=False)
class KVRoles:
    """Which KV heads are full; the others see the first `sink_tokens` and the last `recent_tokens` (2410.10819).

    Attributes:
        full: `[L, G]` bool, one row an attention layer.
        sink_tokens: first tokens of the prompt that streaming heads keep.
        recent_tokens: last tokens that they keep, the query's own included.

    Raises:
        TaskError: not a table of [L, G] booleans, fewer than 0 sinks, or a window below 1.

    Example:
        >>> roles = KVRoles.from_scores(np.array([[0.1, 0.9], [0.5, 0.0]]), budget=0.25)
        >>> roles.full.tolist(), roles.fraction
        ([[False, True], [False, False]], 0.25)
    """

    full: np.ndarray
    sink_tokens: int = SINK_TOKENS
    recent_tokens: int = RECENT_TOKENS

    def __post_init__(self) -> None:
        if self.full.ndim != 2 or self.full.dtype != bool or not self.full.size:
            found = f"{self.full.dtype} of shape {self.full.shape}"
            raise TaskError("roles of KV heads", found=found, expected="bool [L, G]")
        if self.sink_tokens < 0 or self.recent_tokens < 1:
            found = f"{self.sink_tokens} sinks and {self.recent_tokens} recent tokens"
            raise TaskError("window of streaming heads", found=found, expected="0 or more and 1 or more")

    @classmethod
    def from_report(cls, report: HeadReport, budget: float | None = None) -> KVRoles:
        """Take the roles and the window of a report's decode plan; with a budget, the plan under this budget.

        Raises:
            TaskError: the budget is not within 0..1.
            StatisticsError: the report measured nothing that ranks KV heads under a budget.
        """
        info = report.model
        plan = report.decode if budget is None else plan_under_budget(info, report.records, budget)
        full = np.zeros((len(info.attention_layers), info.n_kv_heads), dtype=bool)
        for item in plan.kv_heads:
            full[info.rows[item.layer], item.kv_head] = item.role == "full"
        return cls(full, plan.sink_tokens, plan.recent_tokens)

    @classmethod
    def from_scores(
        cls,
        scores: np.ndarray | Sequence[np.ndarray],
        budget: float,
        sink_tokens: int = SINK_TOKENS,
        recent_tokens: int = RECENT_TOKENS,
    ) -> KVRoles:
        """Keep the best KV heads full: round(budget · L · G) of them, ties as in `analyses.kv_choice.ranking`.

        Args:
            scores: `[L, G]`, larger = rather full; or several, the later ones for ties.
            budget: share of the KV heads, 0..1.

        Raises:
            TaskError: the budget is not within 0..1.
            StatisticsError: nothing was measured, or the scores' shapes differ.
        """
        keys = [scores] if isinstance(scores, np.ndarray) else list(scores)
        return cls(full_under_budget(keys, budget), sink_tokens, recent_tokens)

    @classmethod
    def random(
        cls,
        shape: tuple[int, int],
        budget: float,
        seed: int,
        exclude: np.ndarray | None = None,
        sink_tokens: int = SINK_TOKENS,
        recent_tokens: int = RECENT_TOKENS,
    ) -> KVRoles:
        """Draw the full KV heads, each set of round(budget · L · G) as likely as any other.

        Args:
            shape: (L, G).
            budget: share of all KV heads, 0..1, also where some are excluded.
            seed: of the draw.
            exclude: `[L, G]` bool, KV heads that stay streaming; None excludes none.

        Raises:
            TaskError: the budget is not within 0..1, or too few KV heads are left to draw from.

        Example:
            >>> int(KVRoles.random((8, 4), 0.25, seed=0).full.sum())
            8
        """
        count = budget_count(budget, shape[0] * shape[1])
        taken = np.zeros(shape, dtype=bool) if exclude is None else exclude
        pool = np.flatnonzero(~taken.ravel())
        if taken.shape != tuple(shape) or count > len(pool):
            raise TaskError(
                "random roles of KV heads",
                found=f"{len(pool)} KV heads to draw from, of a table {taken.shape}",
                expected=f"at least {count} of a table {tuple(shape)}",
                fix="Exclude fewer, or lower the budget.",
            )
        full = np.zeros(shape[0] * shape[1], dtype=bool)
        full[np.random.default_rng(seed).choice(pool, count, replace=False)] = True
        return cls(full.reshape(shape), sink_tokens, recent_tokens)

    @property
    def fraction(self) -> float:
        """Share of KV heads that are full."""
        return float(self.full.mean())

    def check(self, info: ModelInfo) -> KVRoles:
        """Return the roles if they are of this model's shape.

        Raises:
            UnknownHeadError: they are of another.
        """
        expected = (len(info.attention_layers), info.n_kv_heads)
        if self.full.shape != expected:
            raise UnknownHeadError(
                f"roles for {info.model_id}",
                found=f"{self.full.shape[0]} layers of {self.full.shape[1]} KV heads",
                expected=f"{expected[0]} attention layers of {expected[1]} KV heads",
                fix="Take roles from a report of this model.",
            )
        return self

    def edits(self, info: ModelInfo) -> tuple[StreamWindow, ...]:
        """Return what makes a model decode so: one window over the query heads of streaming KV heads, or nothing.

        Raises:
            UnknownHeadError: the roles are of a model of another shape.
        """
        from ..edits.stream_window import StreamWindow

        heads = info.query_heads(~self.check(info).full)
        return (StreamWindow(heads, self.sink_tokens, self.recent_tokens),) if heads else ()
