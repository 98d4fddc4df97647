"""Puzzles in two versions that differ in the names or the object asked for, and so in their answer."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import _world as world

LEAD = "Puzzle:"
PLACES = tuple(
    "London Paris Rome Berlin Madrid Moscow Egypt Spain China India Peru Norway Japan Greece Turkey Brazil".split()
)


@dataclass(frozen=True)
class PuzzlePair:
    """Both prompts, both answers with their leading space, and the words that the two versions exchange."""

    prompt: str
    corrupt: str
    answer: str
    wrong: str
    changed: tuple[str, str]
    kind: world.PuzzleKind
    steps: int


def exchange(text: str, one: str, other: str) -> str:
    """Return a text with two words exchanged everywhere.

    Example:
        >>> exchange("Tom sees Ann. Tom waves.", "Tom", "Ann")
        'Ann sees Tom. Ann waves.'
    """
    swap = {one: other, other: one}
    return re.sub(rf"\b({re.escape(one)}|{re.escape(other)})\b", lambda found: swap[found.group()], text)


def pocket_pair(rng: random.Random, split: world.Split, kind: world.PuzzleKind, steps: int | None) -> PuzzlePair:
    """Draw a puzzle that the pocket model knows, and its other version, which belongs to the same split.

    A comparison's top and bottom are exchanged; in the others, another object or person is asked for.

    Example:
        >>> made = pocket_pair(random.Random(0), "test", "comparison", 2)
        >>> exchange(made.prompt, *made.changed) == made.corrupt
        True
    """
    made = world.puzzle(rng, split, kind, steps)
    prompt, answer = world.puzzle_prompt(made), made.questions[0][1]
    if kind == "comparison":
        above = {s.split()[0] for s in made.statements}
        below = {s.rstrip(".").split()[-1] for s in made.statements}
        (bottom,) = below - above
        changed = (answer, bottom)
        return PuzzlePair(prompt, exchange(prompt, *changed), f" {answer}", f" {bottom}", changed, kind, made.steps)
    corrupt, wrong = world.puzzle_prompt(made, 1), made.questions[1][1]
    asked = [_asked(kind, made.questions[i][0]) for i in (0, 1)]
    return PuzzlePair(prompt, corrupt, f" {answer}", f" {wrong}", (asked[0], asked[1]), kind, made.steps)


def _asked(kind: world.PuzzleKind, question: str) -> str:
    return question.rstrip("?").split()[-1] if kind == "transfer" else question.split()[2]


def public_pair(
    rng: random.Random,
    kind: world.PuzzleKind,
    steps: int | None,
    people: Sequence[str],
    things: Sequence[str],
    places: Sequence[str],
) -> PuzzlePair:
    """Draw a puzzle in plain English that ends where its answer begins, and its other version.

    Args:
        rng: draws names, things, places and order.
        kind: transfer, comparison or lookup.
        steps: hand-overs or comparisons; None draws 1 to 3 or 2 to 3.
        people: at least 6 names.
        things: at least 3 objects.
        places: at least 3 places.

    Example:
        >>> words = ["Tom", "Ann", "Joe", "Mary", "John", "Kate"], ["key", "map", "cup"], ["Rome", "Paris", "London"]
        >>> public_pair(random.Random(0), "comparison", 2, *words).prompt.split(", the ")[1].endswith("person is")
        True
    """
    if kind == "transfer":
        return _transfer(rng, steps or rng.randint(1, 3), people, things)
    if kind == "comparison":
        return _comparison(rng, steps or rng.randint(2, 3), people)
    return _lookup(rng, people, things, places)


def _transfer(rng: random.Random, steps: int, people: Sequence[str], things: Sequence[str]) -> PuzzlePair:
    names = rng.sample(list(people), steps + 2)
    thing, second = rng.sample(list(things), 2)
    mine, keeper = names[:-1], names[-1]
    first = [f"{mine[0]} had the {thing}.", f"{keeper} had the {second}."]
    rng.shuffle(first)
    moves = [f"{one} gave the {thing} to {other}." for one, other in itertools.pairwise(mine)]
    stem = "Now the person who has the"
    if rng.random() < 0.5:
        (thing, answer), (second, wrong) = (second, keeper), (thing, mine[-1])
    else:
        answer, wrong = mine[-1], keeper
    text = " ".join([LEAD, *first, *moves, stem])
    return PuzzlePair(
        f"{text} {thing} is", f"{text} {second} is", f" {answer}", f" {wrong}", (thing, second), "transfer", steps
    )


def _comparison(rng: random.Random, steps: int, people: Sequence[str]) -> PuzzlePair:
    names = rng.sample(list(people), steps + 1)
    more, most = rng.choice(world.ADJECTIVES)
    statements = [f"{one} is {more} than {other}." for one, other in itertools.pairwise(names)]
    rng.shuffle(statements)
    prompt, changed = f"{LEAD} {' '.join(statements)} Of them all, the {most} person is", (names[0], names[-1])
    return PuzzlePair(prompt, exchange(prompt, *changed), f" {names[0]}", f" {names[-1]}", changed, "comparison", steps)


def _lookup(rng: random.Random, people: Sequence[str], things: Sequence[str], places: Sequence[str]) -> PuzzlePair:
    names, items, where = rng.sample(list(people), 3), rng.sample(list(things), 3), rng.sample(list(places), 3)
    statements = [f"{one} has the {thing}." for one, thing in zip(names, items, strict=True)]
    statements += [f"The {thing} comes from {place}." for thing, place in zip(items, where, strict=True)]
    rng.shuffle(statements)
    text, changed = " ".join([LEAD, *statements]), (names[0], names[1])
    prompt, corrupt = (f"{text} The thing that {name} has comes from" for name in changed)
    return PuzzlePair(prompt, corrupt, f" {where[0]}", f" {where[1]}", changed, "lookup", 2)
