"""Needle accuracy under budgets of full KV heads, as curves and as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.decode_report import BudgetRow
from ..wording import bounds, number


@dataclass(frozen=True)
class AccuracyPoint:
    """One budget of one curve.

    Attributes:
        budget: share of KV heads that are full, 0..1.
        value: needles answered, 0..1.
        low: lower end of the interval, None where there is none.
        high: upper end, likewise.
        note: the rest in words.
    """

    budget: float
    value: float
    low: float | None
    high: float | None
    note: str


@dataclass(frozen=True)
class AccuracyCurves:
    """The curves of one prompt length.

    Attributes:
        length: tokens a prompt.
        all_full: needles answered with every KV head full, 0..1.
        curves: choice → its points by budget.
        sentence: what happened at the smallest budget at which ours loses at most 3 points.
    """

    length: int
    all_full: float
    curves: dict[str, tuple[AccuracyPoint, ...]]
    sentence: str


def accuracy_curves(rows: Sequence[BudgetRow]) -> list[AccuracyCurves]:
    """Return the curves of every prompt length, in order of length; lengths without all full are left out.

    Args:
        rows: of one model.
    """
    found = []
    for length in sorted({row.length for row in rows}):
        here = sorted((row for row in rows if row.length == length), key=lambda row: row.budget)
        full = next((row for row in here if row.choice == "all full"), None)
        if full is None:
            continue
        others = [row for row in here if row.choice != "all full"]
        names = dict.fromkeys(row.choice for row in others)
        curves = {name: tuple(_point(row) for row in others if row.choice == name) for name in names}
        found.append(AccuracyCurves(length, full.accuracy.value, curves, _sentence(full, others)))
    return found


def accuracy_cells(row: BudgetRow) -> tuple[str, ...]:
    """Return a row as cells of a table: length, budget, full heads, choice, accuracy, difference, cache kept.

    Accuracy and difference come with their intervals.
    """
    difference = row.difference.value
    sign = "+" if difference > 0 else ""
    return (
        f"{row.length:,}",
        f"{row.budget:.4g}",
        str(row.n_full),
        row.choice if row.draws == 1 else f"{row.choice} ({row.draws} draws)",
        f"{number(row.accuracy.value)} {bounds(row.accuracy.interval)}".strip(),
        "" if row.choice == "all full" else f"{sign}{number(difference)} {bounds(row.difference.interval)}".strip(),
        f"{row.kept:.1%}",
    )


def _point(row: BudgetRow) -> AccuracyPoint:
    interval = row.accuracy.interval
    close = "" if row.draws == 1 else f", {row.close} of {row.draws} draws lose at most 3 points"
    note = f"{row.n_full} KV heads full, {row.kept:.1%} of the cache kept, {row.accuracy.n} needles{close}"
    ends = (interval.low, interval.high) if interval else (None, None)
    return AccuracyPoint(row.budget, row.accuracy.value, *ends, note)


def _sentence(full: BudgetRow, others: Sequence[BudgetRow]) -> str:
    ours = next((row for row in others if row.choice == "ours" and row.close), None)
    whole = f"At {full.length:,} tokens the model answers {number(full.accuracy.value)} of the needles"
    if ours is None:
        return f"{whole}; no budget that was measured keeps our choice within 3 points of that."
    text = f"{whole}, and {number(ours.accuracy.value)} with our {ours.n_full} KV heads full ({ours.budget:.2%})"
    random = next((row for row in others if row.choice == "random" and row.budget == ours.budget), None)
    if random is None:
        return f"{text}."
    return f"{text}; with as many at random, {number(random.accuracy.value)} over {random.draws} draws."
