"""Two versions of one puzzle: the answer of each follows from its prompt alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from . import _world as world
from ._facts import Source, check_source
from ._pairs import pair_row, pair_set, problem
from ._puzzle_pairs import PLACES, PuzzlePair, pocket_pair, public_pair
from ._words import usable_words
from .ioi import PEOPLE, THINGS

if TYPE_CHECKING:
    from datasets import Dataset

TRIES = 300
STEPS: dict[Source, dict[world.PuzzleKind, tuple[int, int]]] = {
    "pocket": {"transfer": (2, 5), "comparison": (2, 4), "lookup": (2, 2)},
    "public": {"transfer": (1, 3), "comparison": (2, 3), "lookup": (2, 2)},
}


@dataclass(frozen=True)
class ReasoningPairs:
    """Puzzles of several steps; the corrupt prompt is the same puzzle with another answer.

    A pair set: `input_ids`, `corrupt_ids`, `answer_ids`, `wrong_ids` (the corrupt prompt's answer), `prompt`,
    `corrupt`, `answer`, `wrong`; and `kind`, `steps`, `changed` and `corrupt_changed` (the two words that the sides
    exchange), `changed_positions` (tokens in which the sides differ), `end_position`. A transfer asks for the other
    object, a look-up for another person, and in a comparison top and bottom are exchanged.

    Attributes:
        n: pairs; the kinds take turns.
        seed: of the puzzles.
        source: `pocket`, the embedded model's puzzles; or `public`, plain English that ends where the answer begins.
        split: of the pocket puzzles: `test` has names and objects together that training never showed.
        kind: `transfer`, `comparison` or `lookup`; None takes all.
        steps: of every puzzle; None draws them.
        length: tokens of every prompt, BOS counted; None takes them as they come.

    Raises:
        TaskError: a parameter is out of range, the tokenizer leaves too few words, or no puzzle has the length.

    Example:
        >>> from attnscope.tasks.reasoning_pairs import ReasoningPairs
        >>> row = ReasoningPairs(n=1, kind="transfer").rows(None)[0]
        >>> row["corrupt"].endswith(f"Who has the {row['corrupt_changed']}? Answer:")
        True
    """

    name: ClassVar[str] = "reasoning_pairs"
    n: int = 100
    seed: int = 0
    source: Source = "pocket"
    split: world.Split = "test"
    kind: world.PuzzleKind | None = None
    steps: int | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        check_source(self.name, self.source, self.split)
        if self.n < 1:
            raise TaskError("reasoning_pairs n", found=self.n, expected="at least 1")
        if self.kind not in (None, *world.PUZZLE_KINDS):
            raise TaskError(
                "reasoning_pairs kind", found=repr(self.kind), expected=f"one of {', '.join(world.PUZZLE_KINDS)}"
            )
        if self.steps is not None:
            ranges = [STEPS[self.source][kind] for kind in self.kinds]
            low, high = max(least for least, _ in ranges), min(most for _, most in ranges)
            if not low <= self.steps <= high:
                raise TaskError(
                    f"reasoning_pairs steps for {', '.join(self.kinds)}",
                    found=self.steps,
                    expected=f"{low} to {high}",
                    fix="Change the steps, or name one kind.",
                )

    @property
    def kinds(self) -> tuple[world.PuzzleKind, ...]:
        """The kinds that take turns."""
        return world.PUZZLE_KINDS if self.kind is None else (self.kind,)

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """Return the pairs as plain dictionaries, unchecked; without a tokenizer they have text only."""
        rng = random.Random(f"reasoning pairs:{self.source}:{self.split}:{self.seed}")
        words: tuple[list[str], ...] = ()
        if self.source == "public":
            words = (
                usable_words(tokenizer, PEOPLE, 6, "names in puzzles", answers=True),
                usable_words(tokenizer, THINGS, 3, "things in puzzles"),
                usable_words(tokenizer, PLACES, 3, "places in puzzles", answers=True),
            )
        return [self._row(tokenizer, rng, self.kinds[i % len(self.kinds)], words) for i in range(self.n)]

    def build(self, tokenizer: Any) -> Dataset:
        """Return the pairs."""
        return pair_set(self.name, self.rows(tokenizer))

    def _row(
        self, tokenizer: Any, rng: random.Random, kind: world.PuzzleKind, words: tuple[list[str], ...]
    ) -> dict[str, Any]:
        """Draw puzzles until the two sides make a pair of the length asked for."""
        lengths, trouble = set(), ""
        for _ in range(TRIES):
            if self.source == "public":
                made = public_pair(rng, kind, self.steps, *words)
            else:
                made = pocket_pair(rng, self.split, kind, self.steps)
            row = _as_row(tokenizer, made)
            if tokenizer is None:
                return row
            trouble = problem(row) or ""
            if not trouble and self.length in (None, len(row["input_ids"])):
                return row
            if not trouble:
                lengths.add(len(row["input_ids"]))
        usable = ", ".join(map(str, sorted(lengths))) or "no"
        raise TaskError(
            f"reasoning_pairs of kind {kind!r}" + (f" of {self.length} tokens" if self.length is not None else ""),
            found=f"in {TRIES} draws pairs of {usable} tokens" + (f"; at the last, {trouble}" if trouble else ""),
            expected="sides of equally many tokens and answers that start with different tokens",
            fix="Change kind, steps or length, or use source 'public', which chooses words by their tokens.",
        )


def _as_row(tokenizer: Any, made: PuzzlePair) -> dict[str, Any]:
    row = pair_row(
        tokenizer,
        prompt=made.prompt,
        corrupt=made.corrupt,
        answer=made.answer,
        wrong=made.wrong,
        kind=made.kind,
        steps=made.steps,
        changed=made.changed[0],
        corrupt_changed=made.changed[1],
    )
    if tokenizer is not None:
        sides = zip(row["input_ids"], row["corrupt_ids"], strict=False)
        row["changed_positions"] = [i for i, (clean, corrupt) in enumerate(sides) if clean != corrupt]
        row["end_position"] = len(row["input_ids"]) - 1
    return row
