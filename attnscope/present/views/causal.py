"""Causal checks: what happens when all heads of a label stop."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.report import CausalCheck, HeadReport, Measured
from ..style import LABEL_STYLES
from ..wording import number, units_suffix


@dataclass(frozen=True)
class Bar:
    """One measured value with its interval."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class CausalView:
    """One check as three bars: untouched, ablated, and as many random heads ablated.

    Attributes:
        separated: the intervals of `ablated` and `random` do not overlap; None where one of them has none.
        sentence: what happened, in words.
    """

    label: str
    metric: str
    units: str
    heads: tuple[str, ...]
    ablation: str
    control: str
    n_random_draws: int
    baseline: Bar
    ablated: Bar
    random: Bar
    separated: bool | None
    sentence: str

    @property
    def bars(self) -> tuple[Bar, Bar, Bar]:
        """All three, in reading order."""
        return self.baseline, self.ablated, self.random


def causal_views(report: HeadReport) -> list[CausalView]:
    """Return every check, in the report's order."""
    return [_view(check) for check in report.causal_checks]


def _view(check: CausalCheck) -> CausalView:
    baseline, ablated = _bar("untouched", check.baseline), _bar("ablated", check.ablated)
    random = _bar("random heads", check.random_control)
    return CausalView(
        label=check.label,
        metric=check.metric,
        units=check.baseline.units,
        heads=check.heads,
        ablation=check.ablation,
        control=check.control,
        n_random_draws=check.n_random_draws,
        baseline=baseline,
        ablated=ablated,
        random=random,
        separated=_apart(ablated, random),
        sentence=_sentence(check),
    )


def _bar(name: str, item: Measured) -> Bar:
    interval = item.interval
    return Bar(name, item.value, interval.low if interval else None, interval.high if interval else None, item.n)


def _apart(a: Bar, b: Bar) -> bool | None:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    return a.high < b.low or b.high < a.low


def _sentence(check: CausalCheck) -> str:
    n, suffix = len(check.heads), units_suffix(check.baseline.units)
    kind = LABEL_STYLES[check.label].one
    heads = f"the {kind} head" if n == 1 else f"all {n} {kind} heads"
    control = "one other head" if n == 1 else f"{n} other heads"
    return (
        f"Without {heads}, {check.metric} goes from {number(check.baseline.value)} to "
        f"{number(check.ablated.value)}{suffix}; without {control}, drawn at random, to "
        f"{number(check.random_control.value)}{suffix}."
    )
