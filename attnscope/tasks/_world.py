"""The invented world behind the pocket model: its facts, puzzles and needles, as text.

Pure Python, no torch. Every generator takes a `random.Random`; which items are for training and which for
testing is decided by a stable hash of the item, so the two splits are the same on every machine for ever.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "test"]

_SYLLABLES = [c + v for c in "b d f g k l m n p r s t v z br dr kr tr pl st".split() for v in "aeiou"]
PLACES = tuple(
    "London Paris Rome Egypt Spain China India Peru Norway Kenya Cuba Japan Greece Turkey Brazil Chile".split()
)
JOBS = tuple(
    (
        "baker farmer doctor lawyer teacher sailor painter soldier singer hunter tailor miner clerk judge cook guard"
    ).split()
)
COLOURS = tuple(
    "red blue green black white brown yellow grey pink purple gold silver crimson violet scarlet ivory".split()
)
ANIMALS = tuple("dog cat horse cow sheep goat bird fish fox wolf bear lion mouse frog duck hen".split())
NAMES = tuple(
    (
        "Tom Ann Joe Mary John Sam Kate Paul Jane Mark Lucy Peter Sarah Henry Alice George Emma Jack Rose Frank "
        "Arthur Ruth Edward Martha Robert Helen Philip Clara Charles Grace"
    ).split()
)
OBJECTS = tuple("key book coin ring letter map box knife lamp hat cup bell rope stone shoe drum".split())
CODE_WORDS = tuple(
    (
        "river garden winter silver candle forest market bridge window island castle summer hammer ladder mirror "
        "pepper copper marble feather harbour thunder blanket lantern village"
    ).split()
)
ADJECTIVES = (
    ("taller", "tallest"),
    ("older", "oldest"),
    ("richer", "richest"),
    ("faster", "fastest"),
)


def stable_hash(*parts: object) -> int:
    """A number that depends on the parts alone: not on the process, the machine or the Python version."""
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def split_of(*parts: object) -> Split:
    """Which split an item belongs to: one in ten is for testing."""
    return "test" if stable_hash("split", *parts) % 10 == 0 else "train"


# ---------------------------------------------------------------- facts
@dataclass(frozen=True)
class Relation:
    """What one relation may say: its values, and four wordings that end in the value."""

    values: tuple[str, ...]
    wordings: tuple[str, str, str, str]


RELATIONS: dict[str, Relation] = {
    "born": Relation(
        PLACES,
        ("{e} was born in", "The birthplace of {e} is", "{e} comes from", "The home of {e} was once in"),
    ),
    "job": Relation(
        JOBS,
        (
            "{e} works as a",
            "The job of {e} is that of a",
            "{e} earns a living as a",
            "All the neighbours know {e} as the",
        ),
    ),
    "colour": Relation(
        COLOURS,
        (
            "The favourite colour of {e} is",
            "{e} always wears",
            "{e} likes things that are",
            "The coat of {e} is",
        ),
    ),
    "pet": Relation(
        ANIMALS,
        ("{e} owns a", "The pet of {e} is a", "{e} keeps a", "In the house of {e} there lives a"),
    ),
}


def _entities(count: int = 400) -> tuple[str, ...]:
    rng = random.Random(7)
    names: set[str] = set()
    while len(names) < count:
        names.add("".join(rng.choice(_SYLLABLES) for _ in range(3)).capitalize())
    return tuple(sorted(names))


ENTITIES = _entities()
FACTS: tuple[tuple[str, str], ...] = tuple((e, k) for e in ENTITIES for k in RELATIONS)


def fact_value(entity: str, relation: str) -> str:
    """The one true value of a relation of an entity."""
    values = RELATIONS[relation].values
    return values[stable_hash("value", entity, relation) % len(values)]


def held_out_wording(entity: str, relation: str) -> int:
    """The wording (0-3) in which a fact is never seen in training."""
    return stable_hash("wording", entity, relation) % 4


def fact_stem(entity: str, relation: str, wording: int) -> str:
    """A fact's sentence up to its value."""
    return RELATIONS[relation].wordings[wording].format(e=entity)


# ---------------------------------------------------------------- puzzles
PuzzleKind = Literal["transfer", "comparison", "lookup"]
PUZZLE_KINDS: tuple[PuzzleKind, ...] = ("transfer", "comparison", "lookup")


@dataclass(frozen=True)
class Puzzle:
    """Statements and one or more (question, answer) pairs; the first pair is the puzzle's own."""

    kind: PuzzleKind
    steps: int
    combination: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


def puzzle(rng: random.Random, split: Split, kind: PuzzleKind | None = None, steps: int | None = None) -> Puzzle:
    """Draw a puzzle whose combination of names and objects belongs to the split."""
    chosen: str = kind or rng.choice(PUZZLE_KINDS)
    make = {"transfer": _transfer, "comparison": _comparison, "lookup": _lookup}[chosen]
    while True:
        made = make(rng, steps)
        if split_of(made.kind, *made.combination) == split:
            return made


def _transfer(rng: random.Random, steps: int | None) -> Puzzle:
    """Two objects change hands, in time order; who has the asked one at the end?"""
    k, other = steps or rng.randint(2, 5), rng.randint(1, 2)
    people = rng.sample(NAMES, k + 1 + other + 1)
    obj, second = rng.sample(OBJECTS, 2)
    mine, theirs = people[: k + 1], people[k + 1 :]
    a = [f"{mine[0]} has the {obj}."] + [f"{x} gave the {obj} to {y}." for x, y in itertools.pairwise(mine)]
    b = [f"{theirs[0]} has the {second}."] + [f"{x} gave the {second} to {y}." for x, y in itertools.pairwise(theirs)]
    order = [0] * len(a) + [1] * len(b)
    rng.shuffle(order)
    queues = [iter(a), iter(b)]
    statements = tuple(next(queues[i]) for i in order)
    questions = ((f"Who has the {obj}?", mine[-1]), (f"Who has the {second}?", theirs[-1]))
    return Puzzle("transfer", k, (*sorted(people), *sorted((obj, second))), statements, questions)


def _comparison(rng: random.Random, steps: int | None) -> Puzzle:
    """A chain of comparisons in shuffled order; who is at its top?"""
    k = steps or rng.randint(2, 4)
    people = rng.sample(NAMES, k + 1)
    more, most = rng.choice(ADJECTIVES)
    statements = [f"{x} is {more} than {y}." for x, y in itertools.pairwise(people)]
    rng.shuffle(statements)
    return Puzzle(
        "comparison",
        k,
        tuple(sorted(people)),
        tuple(statements),
        ((f"Who is the {most}?", people[0]),),
    )


def _lookup(rng: random.Random, steps: int | None) -> Puzzle:
    """Each of three people has a thing and each thing is from a place: what does X have, and from where?

    The answer names the thing and then its place, so the second look-up starts from the first one's result.
    """
    if steps not in (None, 2):
        raise ValueError(f"a lookup puzzle has 2 steps, not {steps}")
    people, things, places = rng.sample(NAMES, 3), rng.sample(OBJECTS, 3), rng.sample(PLACES, 3)
    statements = [f"{n} has the {x}." for n, x in zip(people, things)]
    statements += [f"The {x} is from {q}." for x, q in zip(things, places)]
    rng.shuffle(statements)
    questions = tuple(
        (f"What does {people[i]} have, and where is it from?", f"{things[i]} from {places[i]}")
        for i in rng.sample(range(3), 3)
    )
    return Puzzle("lookup", 2, (*sorted(people), *sorted(things)), tuple(statements), questions)


def puzzle_prompt(p: Puzzle, question: int = 0) -> str:
    """The text that a model is asked to continue with the answer."""
    return f"Puzzle: {' '.join(p.statements)} {p.questions[question][0]} Answer:"


# ---------------------------------------------------------------- needles
NeedleKind = Literal["code", "word"]
NEEDLE_STEMS: tuple[str, ...] = (
    "The secret code of the {k} is",
    "The number to remember for the {k} is",
    "Whoever asks for the {k} must be told",
    "The {k} can be opened with the sign",
)


@dataclass(frozen=True)
class NeedleText:
    """A needle: its stem (also the question), its value with a leading space, and what decides its split."""

    stem: str
    value: str
    key: str
    kind: NeedleKind
    template: int


def needle_text(
    rng: random.Random,
    split: Split,
    kind: NeedleKind | None = None,
    template: int | None = None,
    key: str | None = None,
) -> NeedleText:
    """Draw a needle whose key and wording belong to the split."""
    kind = kind or ("word" if rng.random() < 0.25 else "code")
    while True:
        t = rng.randrange(len(NEEDLE_STEMS)) if template is None else template
        k = key or f"{rng.choice(COLOURS)} {rng.choice(OBJECTS)}"
        if split_of("needle", k, t) == split:
            break
    value = rng.choice(CODE_WORDS) if kind == "word" else "".join(rng.sample("0123456789", 5))
    return NeedleText(NEEDLE_STEMS[t].format(k=k), " " + value, k, kind, t)


def place_after_sentence(ids: list[int], wanted: int, ends: frozenset[int], reach: int = 120) -> int:
    """The index at or before `wanted` that follows a sentence's end, or `wanted` if none is near."""
    for i in range(wanted, max(0, wanted - reach), -1):
        if ids[i - 1] in ends:
            return i
    return wanted


def with_bos(tokenizer: Any, ids: list[int]) -> list[int]:
    """The ids behind the tokenizer's begin-of-sequence token, if it has one."""
    bos = tokenizer.bos_token_id
    return ids if bos is None else [bos, *ids]


def encode(tokenizer: Any, text: str) -> list[int]:
    """The ids of a piece of text, with no special tokens added."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
