"""Needle accuracy without heads, and with few KV heads full: each measurement beside its random control."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.retrieval_report import AblationStep, BudgetPoint, RetrievalReport
from ..tokens import visible
from .points import Point, point

MODES = {"zero": "heads write nothing", "uniform": "heads look everywhere alike"}
"""How heads are ablated."""


@dataclass(frozen=True)
class Compared:
    """One accuracy beside that of random choices of as many heads.

    Attributes:
        x: heads ablated, or the share of KV heads that stay full.
        heads: names of the heads, plain text.
        accuracy: measured.
        change: minus the untouched model's, paired over prompts.
        control: mean over random choices.
        draws: accuracy of every random choice.
        higher: whether ours is expected to be higher than the control.
        layer_matched: whether every control took heads of the same layers.
    """

    x: float
    heads: tuple[str, ...]
    accuracy: Point
    change: Point
    control: Point
    draws: tuple[float, ...]
    higher: bool
    layer_matched: bool = True

    @property
    def whole(self) -> float:
        """Accuracy of the untouched model on the same prompts."""
        return (self.accuracy.value or 0.0) - (self.change.value or 0.0)

    @property
    def changed(self) -> bool | None:
        """Whether the interval of the change leaves 0 out; None without an interval."""
        low, high = self.change.low, self.change.high
        return None if low is None or high is None else low > 0 or high < 0

    @property
    def beyond(self) -> bool | None:
        """Whether ours is on the expected side of every random choice; None without one."""
        if not self.draws or self.accuracy.value is None:
            return None
        return self.accuracy.value > max(self.draws) if self.higher else self.accuracy.value < min(self.draws)

    @property
    def apart(self) -> bool | None:
        """Whether it is beyond every random choice and the two intervals do not overlap; None where one is missing."""
        ours, control = self.accuracy, self.control
        if self.beyond is not True:
            return self.beyond
        if ours.low is None or ours.high is None or control.low is None or control.high is None:
            return None
        return ours.low > control.high if self.higher else ours.high < control.low

    @property
    def verdict(self) -> str:
        """The same in words."""
        side = "above" if self.higher else "below"
        if self.beyond is None:
            return "no random control"
        if not self.beyond:
            return f"not {side} every random choice"
        ends = {True: "", False: ", but the intervals overlap", None: ", without intervals to compare"}
        return f"{side} every random choice{ends[self.apart]}"


@dataclass(frozen=True)
class ComparedLine:
    """Measurements in one order of x: one ablation mode, or one length."""

    key: str
    title: str
    points: tuple[Compared, ...]


def ablation_lines(report: RetrievalReport) -> list[ComparedLine]:
    """Return one line a mode, by the number of heads."""
    found = []
    for mode in dict.fromkeys(step.mode for step in report.curve):
        steps = sorted((s for s in report.curve if s.mode == mode), key=lambda s: len(s.heads))
        found.append(ComparedLine(mode, f"{mode.capitalize()}: {MODES[mode]}", tuple(map(_step, steps))))
    return found


def budget_lines(report: RetrievalReport) -> list[ComparedLine]:
    """Return one line a length, by the share of KV heads that stay full."""
    found = []
    for length in sorted({item.length for item in report.budgets}):
        items = sorted((b for b in report.budgets if b.length == length), key=lambda b: b.budget)
        found.append(ComparedLine(str(length), f"{length:,} tokens", tuple(map(_budget, items))))
    return found


def _step(step: AblationStep) -> Compared:
    return Compared(
        x=float(len(step.heads)),
        heads=tuple(map(visible, step.heads)),
        accuracy=point(step.accuracy),
        change=point(step.change),
        control=point(step.control),
        draws=step.control_draws,
        higher=False,
        layer_matched=step.layer_matched,
    )


def _budget(item: BudgetPoint) -> Compared:
    return Compared(
        x=item.budget,
        heads=tuple(map(visible, item.full)),
        accuracy=point(item.accuracy),
        change=point(item.change),
        control=point(item.control),
        draws=item.control_draws,
        higher=True,
    )
