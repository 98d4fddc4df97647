"""Decode roles: which KV heads a sparse decoder may cut down to sink tokens and a recent window."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

NEEDS_CONTEXT = frozenset({"induction", "duplicate_token", "retrieval", "recall", "reasoning"})
RULE = (
    "streaming where no query head of the group carries a content label and each spends at least {share:.0%} of its "
    "attention on the first token and the last {recent} tokens; full otherwise, also where that was not measured"
)
BUDGET_RULE = (
    "{count} of {total} KV heads full, a budget of {budget:.4g}: the best by {scores}, each the largest of the KV "
    "head's query heads; streaming otherwise"
)


def decode_role(labels: Sequence[Collection[str]], kept_mass: Sequence[float], least: float) -> tuple[str, str]:
    """Return one KV head's role, `full` or `streaming`, and the reason (2410.10819's two kinds of head).

    Args:
        labels: labels of each query head of the group.
        kept_mass: each query head's attention on what a streaming cache keeps, 0..1; NaN where not measured.
        least: the least such mass.

    Example:
        >>> decode_role([{"sink"}, {"induction"}], [1.0, 1.0], 0.9)
        ('full', 'serves induction')
    """
    content = sorted(set().union(*labels) & NEEDS_CONTEXT)
    if content:
        return "full", f"serves {', '.join(content)}"
    if any(mass != mass for mass in kept_mass):
        return "full", "attention on sink and window was not measured"
    if min(kept_mass) < least:
        return "full", f"a query head keeps only {min(kept_mass):.0%} of its attention"
    return "streaming", f"every query head keeps at least {min(kept_mass):.0%} of its attention"


def kept_mass(first_token_mass: float, by_distance: Mapping[int, float], recent: int) -> float:
    """Return a head's attention on the first token and at distances below `recent`, capped at 1.

    Args:
        first_token_mass: 0..1.
        by_distance: lower edge of each distance bin → mass; bins at or above `recent` are left out.

    Example:
        >>> kept_mass(0.5, {0: 0.25, 64: 0.25}, recent=64)
        0.75
    """
    return min(1.0, first_token_mass + sum(mass for edge, mass in by_distance.items() if edge < recent))
