"""Prompts for planted recall and reasoning heads: pairs of equal length, alike but for their last two tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from attnscope.core.errors import TaskError

from .circuits import facts
from .spec import PlantedSpec
from .vocabulary import BOS

STEPS = 4  # of two chains of two steps
SHORTEST_PUZZLE = 1 + 2 * STEPS + STEPS - 1 + 2


def recall_prompts(spec: PlantedSpec, n: int, length: int, seed: int = 0) -> Dataset:
    """Return prompts that end with an entity and a relation; the answer is the stored value.

    Before them stand words and the steps of a puzzle that is not asked. The corrupt prompt names another entity.

    Args:
        spec: the planted model's specification.
        n: number of prompts; they go through all relations in turn.
        length: tokens with BOS, `SHORTEST_PUZZLE` .. context length.
        seed: decides every token.

    Returns:
        Columns `input_ids` (with BOS), `corrupt_ids` (of the same length), `answer_ids` and `wrong_ids` (one token, the
        answers of the two), `query_positions` (`[length - 1]`), `target_ids` (`answer_ids`), `prompt`, `answer` (text).

    Raises:
        TaskError: no such prompts at this length, or no recall heads.

    Example:
        >>> from attnscope.core.ids import HeadId
        >>> row = recall_prompts(PlantedSpec(hidden_size=288, heads={HeadId(1, 0): "recall"}), 1, 24)[0]
        >>> row["prompt"].split()[-2:], row["answer"]
        (['entity4', 'relation0'], 'value4')
    """
    _check(spec, n, length)
    stored = facts(spec)
    if not stored:
        _fail("recall", spec, 'a head planted as "recall"')
    rng = np.random.default_rng([seed, 14])
    known = {(fact.entity, fact.relation): fact.value for fact in stored}
    entities, relations = spec.vocabulary.entities, sorted({fact.relation for fact in stored})
    rows = []
    for index in range(n):
        relation = relations[index % len(relations)]
        entity, other = (int(token) for token in rng.choice(entities, 2, replace=False))
        body = _Body(spec, length, rng)
        words = body.tokens(range(STEPS))
        clean, corrupt = ([BOS, *words, token, relation] for token in (entity, other))
        rows.append(_row(spec, clean, corrupt, known[entity, relation], known[other, relation]))
    return Dataset.from_list(rows)


def reasoning_prompts(spec: PlantedSpec, n: int, length: int, seed: int = 0) -> Dataset:
    """Return prompts that state steps in any order and end with a source; the answer is where two steps lead from it.

    The steps form two chains of two. The corrupt prompt asks for the other chain's source and states every step in
    another's place, so that each head of the circuit has other work there.

    Args:
        spec: the planted model's specification.
        n: number of prompts.
        length: tokens with BOS, `SHORTEST_PUZZLE` .. context length.
        seed: decides every token.

    Returns:
        The columns of `recall_prompts`.

    Raises:
        TaskError: no such prompts at this length, or no look-up heads.

    Example:
        >>> from attnscope.core.ids import HeadId
        >>> heads = {HeadId(0, 1): "previous_token", HeadId(1, 0): "lookup", HeadId(2, 2): "second_lookup"}
        >>> row = reasoning_prompts(PlantedSpec(hidden_size=288, heads=heads), 1, 14)[0]
        >>> row["prompt"], row["answer"]
        ('from1 to2 w123 from6 to3 w27 from2 to4 w93 from3 to7 w44 from6', 'to7')
    """
    _check(spec, n, length)
    if not spec.of_kind("lookup"):
        _fail("reasoning", spec, 'heads planted as "lookup" and "second_lookup"')
    rng = np.random.default_rng([seed, 15])
    rows = []
    for _ in range(n):
        body = _Body(spec, length, rng)
        word = int(rng.choice(spec.vocabulary.words))
        order = rng.permutation(STEPS).tolist()
        shifted = [*order[1:], order[0]]
        clean = [BOS, *body.tokens(order), word, body.asked[0]]
        corrupt = [BOS, *body.tokens(shifted), word, body.asked[1]]
        rows.append(_row(spec, clean, corrupt, *body.answers))
    return Dataset.from_list(rows)


class _Body:
    """Words and the steps of two chains, at random places."""

    def __init__(self, spec: PlantedSpec, length: int, rng: np.random.Generator) -> None:
        sources, targets = spec.vocabulary.sources, spec.vocabulary.targets
        nodes = rng.choice(len(sources), 6, replace=False).tolist()
        chains = nodes[:3], nodes[3:]
        self.steps = [[sources[chain[i]], targets[chain[i + 1]]] for chain in chains for i in range(2)]
        self.asked = [sources[chain[0]] for chain in chains]
        self.answers = targets[nodes[2]], targets[nodes[5]]
        self._words = rng.choice(spec.vocabulary.words, length - 3 - 2 * STEPS).tolist()
        self._places = sorted(rng.choice(len(self._words) + 1, STEPS, replace=False).tolist(), reverse=True)

    def tokens(self, order: Sequence[int]) -> list[int]:
        """Return the tokens with the steps in this order."""
        tokens = list(self._words)
        for place, step in zip(self._places, reversed(order), strict=True):
            tokens[place:place] = self.steps[step]
        return tokens


def _row(spec: PlantedSpec, clean: list[int], corrupt: list[int], answer: int, wrong: int) -> dict[str, Any]:
    names = spec.vocabulary.names
    return {
        "input_ids": clean,
        "corrupt_ids": corrupt,
        "answer_ids": [answer],
        "wrong_ids": [wrong],
        "query_positions": [len(clean) - 1],
        "target_ids": [answer],
        "prompt": " ".join(names[token] for token in clean[1:]),
        "answer": names[answer],
    }


def _check(spec: PlantedSpec, n: int, length: int) -> None:
    if n < 1:
        raise TaskError("planted prompts", found=n, expected="at least 1")
    if not SHORTEST_PUZZLE <= length <= spec.context_length:
        expected = f"{SHORTEST_PUZZLE} to {spec.context_length} tokens"
        raise TaskError("length of planted prompts", found=length, expected=expected)


def _fail(task: str, spec: PlantedSpec, expected: str) -> None:
    kinds = ", ".join(sorted(set(spec.heads.values()))) or "nothing"
    raise TaskError(f"planted {task} prompts", found=f"a model with {kinds}", expected=expected)
