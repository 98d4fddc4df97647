"""What a retrieval report measures, on which prompts, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .core.errors import TaskError
from .core.model_info import ModelInfo
from .decoding.evaluate import BUDGETS
from .engine.ablation_curve import COUNTS
from .tasks.needle_grid import DEPTHS, NeedleGrid
from .tasks.passages import Passages
from .tasks.repeats import Repeats
from .tasks.text import Text

NORMAL_LENGTHS = (512, 1024, 2048)
THRESHOLD = 0.1
"""Retrieval score from which on a head counts as a retrieval head (2404.15574)."""


@dataclass(frozen=True)
class RetrievalPlan:
    """What a retrieval report measures.

    Attributes:
        lengths: tokens of needle prompts; None takes 512, 1024 and 2048, as far as the model's context goes.
        depths: of needles, 0 (start) to 1 (end).
        repeats: needles a length and depth.
        kind: of needles, see `tasks.needle_grid.NeedleGrid`.
        others: other needles in each prompt.
        haystack: your own text for needles and passages; None takes the embedded English.
        needles: your own needles, a .jsonl file.
        decode_steps: tokens generated a needle; 0 leaves out scores while decoding.
        passages: prompts for QRHead.
        echoes: prompts of random tokens repeated four times, `period` tokens each, for RazorAttention.
        period: see `echoes`; the papers' 2,500 cost much on a CPU.
        patterns: text prompts for vertical-and-slash statistics, of `patterns_length` tokens.
        patterns_length: see `patterns`.
        causal: whether heads are ablated.
        ablated: needles that heads are ablated on, at most.
        counts: how many heads are ablated together.
        draws: random controls of each step.
        budgets: shares of KV heads that stay full, in the measurement of sparse decoding; it needs `causal`.
        budget_needles: other needles that this is measured on, at the shortest and the longest length.
        budget_draws: random choices of full KV heads.
        seed: of prompts and controls.

    Raises:
        TaskError: a parameter is out of range.

    Example:
        >>> RetrievalPlan(lengths=(512,), repeats=2).grid_length
        512
    """

    lengths: tuple[int, ...] | None = None
    depths: tuple[float, ...] = DEPTHS
    repeats: int = 2
    kind: Literal["code", "word", "key_value"] = "code"
    others: int = 0
    haystack: str | None = None
    needles: str | None = None
    decode_steps: int = 16
    passages: int = 16
    echoes: int = 4
    period: int = 250
    patterns: int = 4
    patterns_length: int = 1024
    causal: bool = True
    ablated: int = 15
    counts: tuple[int, ...] = COUNTS
    draws: int = 5
    budgets: tuple[float, ...] = BUDGETS
    budget_needles: int = 20
    budget_draws: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"repeats": 1, "decode_steps": 0, "passages": 1, "echoes": 1, "period": 2, "patterns": 1, "ablated": 1}
        least |= {"budget_needles": 1, "budget_draws": 1}
        for field, low in (least | {"draws": 1}).items():
            if getattr(self, field) < low:
                raise TaskError(f"retrieval plan, {field}", found=getattr(self, field), expected=f"at least {low}")
        if not all(0 < budget <= 1 for budget in self.budgets):
            raise TaskError("retrieval plan, budgets", found=self.budgets, expected="shares above 0, up to 1")
        if not self.counts or min(self.counts) < 1:
            raise TaskError("retrieval plan, counts", found=self.counts, expected="numbers of heads, 1 or more")

    @property
    def grid_length(self) -> int:
        """Tokens of the longest needle prompt that was asked for."""
        return max(self.lengths or NORMAL_LENGTHS)

    def grid(self, info: ModelInfo) -> NeedleGrid:
        """Return the needles.

        Raises:
            TaskError: a length beyond the model's context, or out of range.
        """
        limit = info.context_length
        lengths = self.lengths or tuple(n for n in NORMAL_LENGTHS if limit is None or n <= limit) or (limit or 512,)
        if limit is not None and max(lengths) > limit:
            raise TaskError(
                f"needles of {max(lengths)} tokens",
                found=f"{info.model_id}, made for {limit}",
                expected=f"at most {limit}",
                fix=f"Pass --lengths of {limit} or less.",
            )
        return NeedleGrid(
            lengths, self.depths, self.repeats, self.kind, self.others, self.haystack, self.needles, self.seed
        )

    def budget_lengths(self, info: ModelInfo) -> tuple[int, ...]:
        """Return the lengths at which sparse decoding is measured."""
        lengths = self.grid(info).lengths
        return tuple(sorted({min(lengths), max(lengths)})) if self.causal and self.budgets else ()

    def budget_grid(self, length: int) -> NeedleGrid:
        """Return the needles of one length that sparse decoding is measured on, none of them seen by a score."""
        repeats = max(1, -(-self.budget_needles // len(self.depths)))
        return NeedleGrid(
            (length,), self.depths, repeats, self.kind, self.others, self.haystack, self.needles, self.seed + 1000
        )

    def passage_task(self, info: ModelInfo) -> Passages:
        """Return the passages for QRHead."""
        length = min(768, info.context_length or 768)
        return Passages(self.passages, max(2, min(8, length // 40)), length, self.haystack, self.seed)

    def echo_task(self, info: ModelInfo) -> Repeats:
        """Return the repeated random tokens for RazorAttention: BOS and `period` tokens, four times over."""
        limit = info.context_length
        period = self.period if limit is None else min(self.period, (limit - 1) // 4)
        return Repeats(n=self.echoes, period=period, copies=4, seed=self.seed)

    def pattern_task(self, info: ModelInfo) -> Text:
        """Return the text for vertical-and-slash statistics."""
        length = self.patterns_length
        return Text(self.haystack, n=self.patterns, length=min(length, info.context_length or length))


def planned_tokens(plan: RetrievalPlan, info: ModelInfo) -> int:
    """Return how many tokens a retrieval report runs through the model at most, repeats counted."""
    grid, passages, echoes, text = (
        plan.grid(info),
        plan.passage_task(info),
        plan.echo_task(info),
        plan.pattern_task(info),
    )
    needles = sum(length for length, _ in grid.cells) * plan.repeats
    seen = 2 * needles + (needles + grid.n * plan.decode_steps) * (plan.decode_steps > 0)
    seen += 2 * passages.n * passages.length + echoes.n * (1 + 4 * echoes.period) + text.n * text.length
    if plan.causal:
        share = min(1.0, plan.ablated / grid.n)
        seen += round(needles * share) * 2 * len(plan.counts) * (1 + plan.draws)
    for length in plan.budget_lengths(info):
        seen += plan.budget_grid(length).n * (length + 40 * len(plan.budgets) * (1 + plan.budget_draws))
    return int(seen)
