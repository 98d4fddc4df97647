"""Taxonomy: from scores to labels by one table of named, cited rules."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Comparison = Literal[">", ">=", "<", "<="]
COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class Rule:
    """A head whose score compares so gets the label, unless it carries one of `unless` already.

    Attributes:
        name: the rule's name in reports.
        label: one of core.names.LABELS.
        score: one of core.names.SCORES.
        comparison: with `threshold`.
        threshold: in the score's units.
        unless: labels of earlier rules that say more; the rule is then not applied.
        citation: arXiv id of the score, or of the threshold where it has one.
        why: where the threshold comes from.
    """

    name: str
    label: str
    score: str
    comparison: Comparison
    threshold: float
    citation: str
    why: str
    unless: tuple[str, ...] = ()

    def holds(self, scores: Mapping[str, float]) -> bool:
        """Whether the score was measured and passes."""
        value = scores.get(self.score)
        return value is not None and value == value and COMPARE[self.comparison](value, self.threshold)

    def row(self) -> dict[str, str | float | None]:
        """The rule as a flat record for reports."""
        return {**asdict(self), "unless": ", ".join(self.unless)}


CONTENT = ("induction", "duplicate_token", "retrieval")
"""Labels of heads that find something by its content; they rest on a sink when there is nothing to find."""

EFFECTS = ("recall", "reasoning")
"""Labels of heads that answers need: what a head serves, beside what it looks at. Such a head is no idle sink."""

RULES: tuple[Rule, ...] = (
    Rule("previous-token", "previous_token", "previous_token", ">=", 0.5, "2209.11895", "most of the attention"),
    Rule("duplicate-token", "duplicate_token", "duplicate_token", ">=", 0.5, "2211.00593", "most of the attention"),
    Rule("induction", "induction", "induction", ">=", 0.5, "2209.11895", "most of the attention"),
    Rule("retrieval", "retrieval", "retrieval", ">=", 0.1, "2404.15574", "the paper's threshold"),
    Rule("recall-effect", "recall", "recall_effect", ">=", 0.15, "2510.03366", "ours: 15 points of accuracy"),
    Rule("reasoning-effect", "reasoning", "reasoning_effect", ">=", 0.15, "2510.03366", "ours: 15 points of accuracy"),
    Rule("local", "local", "local_mass", ">=", 0.8, "2309.17453", "ours", ("previous_token", *CONTENT)),
    Rule(
        "sink-rate",
        "sink",
        "sink_rate",
        ">=",
        50.0,
        "2410.10781",
        "the paper's sink (ε 0.3, 64 tokens) in most prompts",
        ("previous_token", "local", *CONTENT, *EFFECTS),
    ),
    Rule(
        "sink-mass",
        "sink",
        "sink_mass",
        ">=",
        0.5,
        "2406.15765",
        "most of the attention, on any of the layer's sinks",
        ("sink", "previous_token", "local", *CONTENT, *EFFECTS),
    ),
    Rule(
        "positional",
        "positional",
        "positional_share",
        ">=",
        0.8,
        "definition",
        "ours",
        ("previous_token", "local", "sink", *CONTENT),
    ),
)


def classify(scores: Mapping[str, float], rules: Sequence[Rule] = RULES) -> list[Rule]:
    """Return the rules that name a head, in the table's order; an empty list means unclassified.

    A score that is absent or NaN was not measured: no rule on it holds.

    Example:
        >>> [rule.label for rule in classify({"induction": 0.9, "sink_mass": 0.8})]
        ['induction']
    """
    held: list[Rule] = []
    for rule in rules:
        if rule.holds(scores) and not {other.label for other in held} & set(rule.unless):
            held.append(rule)
    return held
