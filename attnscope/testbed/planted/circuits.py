"""Planted recall and reasoning circuits: which facts the weights hold, and which heads answer what.

Recall. A prompt ends with an entity and a relation. At the relation a "recall" head attends to the entity and writes
its code; neurons of the same block, one a fact, open where they see this entity and this relation, and write the value.
Each recall head serves its own relations.

Reasoning. A prompt states steps in any order, each a source and its target ("from3 to5"), and ends with a source. The
supporting previous-token head writes to every target which source stands before it. The "lookup" head finds the asked
source's target and writes the source form of it; the "second_lookup" head finds the target of that and answers with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attnscope.core.ids import HeadId

from .labels import supporting_head
from .vocabulary import N_RELATIONS

if TYPE_CHECKING:
    from .layout import Layout
    from .spec import PlantedSpec

ANSWER = 0.1  # amplitude of the answer's code


class Fact(NamedTuple):
    """One stored fact, as token ids, and the recall head that it needs."""

    entity: int
    relation: int
    value: int
    head: HeadId


def relations_of(spec: PlantedSpec) -> dict[HeadId, list[int]]:
    """Return the relations that each recall head serves, 0-based.

    Example:
        >>> from attnscope.testbed.planted import PlantedSpec
        >>> relations_of(PlantedSpec(hidden_size=288, heads={HeadId(1, 0): "recall", HeadId(2, 3): "recall"}))
        {L1H0: [0, 2], L2H3: [1, 3]}
    """
    heads = spec.of_kind("recall")
    return {head: list(range(index, N_RELATIONS, len(heads))) for index, head in enumerate(heads)}


def facts(spec: PlantedSpec) -> list[Fact]:
    """Return every stored fact; the values of one relation all differ. Empty without recall heads.

    Example:
        >>> from attnscope.testbed.planted import PlantedSpec
        >>> spec = PlantedSpec(hidden_size=288, heads={HeadId(1, 0): "recall"})
        >>> len(facts(spec)), len(facts(PlantedSpec()))
        (32, 0)
    """
    vocabulary, rng = spec.vocabulary, np.random.default_rng([spec.seed, 5])
    heads = {relation: head for head, relations in relations_of(spec).items() for relation in relations}
    stored = []
    for relation, head in sorted(heads.items()):
        values = rng.permutation(vocabulary.values)
        for entity, value in zip(vocabulary.entities, values):
            stored.append(Fact(entity, vocabulary.relations[relation], int(value), head))
    return stored


def next_source(layout: Layout) -> np.ndarray:
    """Return the matrix that takes a target's code to the code of the same node as a source, `[32, 32]`."""
    vocabulary, codes = layout.spec.vocabulary, layout.codes
    return codes[list(vocabulary.sources)].T @ np.linalg.pinv(codes[list(vocabulary.targets)].T)


def circuit_heads(spec: PlantedSpec) -> dict[str, tuple[HeadId, ...]]:
    """Return the heads whose loss costs answers: task → heads, in order.

    "recall" are the recall heads (each is needed for its own relations only); "reasoning" the supporting previous-token
    head and the two look-ups (each is needed for every answer). Knocked-out heads are left out; once one of the three
    is knocked out nothing is answered, and so no other head is necessary.

    Example:
        >>> from attnscope.testbed.planted import PlantedSpec
        >>> heads = {HeadId(0, 1): "previous_token", HeadId(1, 0): "lookup", HeadId(2, 2): "second_lookup"}
        >>> spec = PlantedSpec(hidden_size=288, heads=heads)
        >>> circuit_heads(spec)
        {'recall': (), 'reasoning': (L0H1, L1H0, L2H2)}
        >>> circuit_heads(spec.without(HeadId(1, 0)))
        {'recall': (), 'reasoning': ()}
    """
    recall = tuple(head for head in spec.of_kind("recall") if head not in spec.knocked_out)
    support, lookups = supporting_head(spec), [*spec.of_kind("lookup"), *spec.of_kind("second_lookup")]
    needed = sorted([support, *lookups]) if support and lookups else []
    return {"recall": recall, "reasoning": () if spec.knocked_out & {*needed} else tuple(needed)}
