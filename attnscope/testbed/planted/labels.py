"""The labels that a classifier has to give back for a planted model."""

from __future__ import annotations

from attnscope.core.ids import HeadId

from .spec import PlantedSpec

_LABELS = {"uniform": "positional", "lookup": "reasoning", "second_lookup": "reasoning"}  # others: their own label
_LOOKS_UP = ("induction", "retrieval", "lookup", "second_lookup")


def supporting_head(spec: PlantedSpec) -> HeadId | None:
    """Return the previous-token head that writes what induction and retrieval heads read: the first one.

    Example:
        >>> supporting_head(PlantedSpec(heads={HeadId(1, 2): "previous_token", HeadId(2, 0): "previous_token"}))
        L1H2
    """
    writers = spec.of_kind("previous_token")
    return writers[0] if writers else None


def expected_labels(spec: PlantedSpec) -> dict[HeadId, frozenset[str]]:
    """Return the labels of every head.

    A uniform head is "positional": its pattern is a function of position alone. Induction, retrieval and duplicate
    heads rest on BOS when idle, which makes them no sink heads. A knocked-out head is unclassified. Where the
    supporting previous-token head is knocked out, induction, retrieval and look-up heads find nothing ever again and
    rest on BOS for good: they are then "sink"; so is the second look-up without the first.

    "recall" and "reasoning" are labels by effect: a report that measures no recall or reasoning sees heads that rest on
    BOS on every other prompt, and calls them "sink". The supporting head is "reasoning" too where there are look-ups.

    Example:
        >>> spec = PlantedSpec(heads={HeadId(0, 1): "previous_token", HeadId(1, 0): "induction"})
        >>> sorted(expected_labels(spec)[HeadId(1, 0)])
        ['induction']
        >>> twin = expected_labels(spec.without(HeadId(0, 1)))
        >>> sorted(twin[HeadId(0, 1)]), sorted(twin[HeadId(1, 0)])
        (['unclassified'], ['sink'])
    """
    support = supporting_head(spec)
    broken = support in spec.knocked_out
    lookups = [*spec.of_kind("lookup"), *spec.of_kind("second_lookup")]
    answers = bool(lookups) and spec.knocked_out.isdisjoint([*lookups, *([support] if support else [])])
    labels = {}
    for head in spec.all_heads():
        kind = spec.kind(head)
        if head in spec.knocked_out:
            kind = "unclassified"
        elif (broken and kind in _LOOKS_UP) or (kind == "second_lookup" and not answers):
            kind = "sink"
        elif kind == "lookup" and not answers:
            kind = "unclassified"
        labels[head] = frozenset({_LABELS.get(kind, kind), *(["reasoning"] if answers and head == support else [])})
    return labels
