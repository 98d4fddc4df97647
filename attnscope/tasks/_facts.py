"""Facts to ask for, from the pocket model's world or from everybody's."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ..core.errors import TaskError
from . import _public_facts as public
from . import _world as world

Source = Literal["pocket", "public"]
SOURCES: tuple[Source, ...] = ("pocket", "public")
LEAD = "Fact:"


@dataclass(frozen=True)
class Fact:
    """A sentence up to its value, and the value."""

    subject: str
    relation: str
    wording: int
    stem: str
    value: str

    @property
    def sentence(self) -> str:
        """The whole sentence, with a space in front."""
        return f" {self.stem} {self.value}."


def check_source(task: str, source: str, split: str) -> None:
    """Check the two options that recall and reasoning pairs share.

    Raises:
        TaskError: an unknown source or split.
    """
    if source not in SOURCES:
        raise TaskError(f"{task} source", found=repr(source), expected="'pocket' or 'public'")
    if split not in ("train", "test"):
        raise TaskError(f"{task} split", found=repr(split), expected="'train' or 'test'")


@lru_cache(maxsize=4)
def facts_to_ask(source: Source, split: world.Split) -> tuple[Fact, ...]:
    """Return every fact in every wording in which it may be asked.

    The pocket model is asked in the wording it never saw (`test`) or in those it saw (`train`); public facts have no
    splits.

    Example:
        >>> len(facts_to_ask("pocket", "test"))
        1600
    """
    if source == "public":
        return tuple(_public(s, r, w) for s, r in public.FACTS for w in range(len(public.RELATIONS[r].wordings)))
    return tuple(
        _pocket(entity, relation, wording)
        for entity, relation in world.FACTS
        for wording in range(4)
        if (wording == world.held_out_wording(entity, relation)) == (split == "test")
    )


def facts_to_show(source: Source) -> tuple[Fact, ...]:
    """Return the facts that may stand in a prompt as true statements: of the pocket world, in wordings it saw."""
    return facts_to_ask(source, "train")


def _public(subject: str, relation: str, wording: int) -> Fact:
    made = public.RELATIONS[relation]
    return Fact(subject, relation, wording, made.wordings[wording].format(s=subject), made.values[subject])


def _pocket(entity: str, relation: str, wording: int) -> Fact:
    stem, value = world.fact_stem(entity, relation, wording), world.fact_value(entity, relation)
    return Fact(entity, relation, wording, stem, value)


class Filler:
    """True statements whose tokens add up to a given number.

    Args:
        tokenizer: of the model.
        source: of the statements.
    """

    def __init__(self, tokenizer: Any, source: Source) -> None:
        self.by_count: dict[int, list[Fact]] = {}
        for fact in facts_to_show(source):
            self.by_count.setdefault(len(world.encode(tokenizer, fact.sentence)), []).append(fact)
        self.reachable = [True]

    def reach(self, tokens: int) -> bool:
        """Return whether some statements have together this many tokens."""
        while len(self.reachable) <= tokens:
            here = len(self.reachable)
            self.reachable.append(any(count <= here and self.reachable[here - count] for count in self.by_count))
        return tokens >= 0 and self.reachable[tokens]

    def draw(self, rng: random.Random, tokens: int, taken: Collection[str]) -> list[Fact] | None:
        """Return statements of together this many tokens, or None where none are found.

        Each subject comes once; no subject and no value is among those that are taken.
        """
        for _ in range(20 if self.reach(tokens) else 0):
            chosen: list[Fact] = []
            left = tokens
            while left > 0:
                found = self._one(rng, left, {*taken, *(fact.subject for fact in chosen)})
                if found is None:
                    break
                left -= found[0]
                chosen.append(found[1])
            if left == 0:
                return chosen
        return None

    def _one(self, rng: random.Random, left: int, taken: Collection[str]) -> tuple[int, Fact] | None:
        counts = [count for count in sorted(self.by_count) if count <= left and self.reach(left - count)]
        for _ in range(20):
            count = rng.choice(counts)
            fact = rng.choice(self.by_count[count])
            if fact.subject not in taken and fact.value not in taken:
                return count, fact
        return None
