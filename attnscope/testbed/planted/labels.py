"""The labels that a classifier has to give back for a planted model."""

from __future__ import annotations

from attnscope.core.ids import HeadId

from .spec import PlantedSpec

_LABELS = {"uniform": "positional", "recall": "sink", "lookup": "sink", "second_lookup": "sink"}  # others: themselves


def supporting_head(spec: PlantedSpec) -> HeadId | None:
    """Return the previous-token head that writes what induction and retrieval heads read: the first one.

    Example:
        >>> supporting_head(PlantedSpec(heads={HeadId(1, 2): "previous_token", HeadId(2, 0): "previous_token"}))
        L1H2
    """
    writers = spec.of_kind("previous_token")
    return writers[0] if writers else None


def expected_labels(spec: PlantedSpec, effects: bool = True) -> dict[HeadId, frozenset[str]]:
    """Return the labels of every head.

    A uniform head is "positional": its pattern is a function of position alone. Induction, retrieval and duplicate
    heads rest on BOS when idle, which makes them no sink heads. A knocked-out head is unclassified. Where the
    supporting previous-token head is knocked out, induction and retrieval heads find nothing ever again and rest on
    BOS for good: they are then "sink".

    "recall" and "reasoning" are labels by effect. Heads of these circuits rest on BOS on all other prompts, so they are
    "sink" where effects are not measured, or where another head of the circuit is knocked out and nothing is answered.
    The supporting head is "reasoning" too where there are look-ups.

    Args:
        spec: the planted model's specification.
        effects: whether the labels come from measured effects on recall and reasoning too.

    Example:
        >>> spec = PlantedSpec(heads={HeadId(0, 1): "previous_token", HeadId(1, 0): "induction"})
        >>> sorted(expected_labels(spec)[HeadId(1, 0)])
        ['induction']
        >>> twin = expected_labels(spec.without(HeadId(0, 1)))
        >>> sorted(twin[HeadId(0, 1)]), sorted(twin[HeadId(1, 0)])
        (['unclassified'], ['sink'])
    """
    support = supporting_head(spec)
    lookups = [*spec.of_kind("lookup"), *spec.of_kind("second_lookup")]
    reasoning = {*lookups, support} if lookups and spec.knocked_out.isdisjoint([*lookups, support]) else set()
    labels = {}
    for head in spec.all_heads():
        kind = spec.kind(head)
        if head in spec.knocked_out:
            kind = "unclassified"
        elif support in spec.knocked_out and kind in ("induction", "retrieval"):
            kind = "sink"
        names = {_LABELS.get(kind, kind)}
        if effects and (kind == "recall" or head in reasoning):
            names = names - {"sink"} | {"recall" if kind == "recall" else "reasoning"}
        labels[head] = frozenset(names)
    return labels
