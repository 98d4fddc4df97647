"""Two facts of one relation in one wording: the answer of each is stored in the weights."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from . import _world as world
from ._facts import LEAD, Fact, Filler, Source, check_source, facts_to_ask
from ._pairs import pair_row, pair_set
from ._words import token_at, word_ids

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class RecallPairs:
    """Facts to complete; the corrupt prompt asks the same of another subject, whose value differs.

    A pair set: `input_ids`, `corrupt_ids`, `answer_ids`, `wrong_ids` (the corrupt prompt's answer), `prompt`,
    `corrupt`, `answer`, `wrong`; and `subject`, `corrupt_subject`, `relation`, `wording`, `subject_position` and
    `subject_last_position` (its first and last token), `end_position`, `shown` (how many statements stand in front).
    With a length, other true statements of the same world stand in front, the same on both sides; none has one of the
    two subjects or one of the two answers.

    Attributes:
        n: pairs.
        seed: of facts, partners and statements.
        source: `pocket`, the facts of the embedded model; or `public`, capitals, languages, chemical symbols and other
            facts that models of English know.
        split: of the pocket facts: `test` asks in the wording that training never showed.
        length: tokens of every prompt, BOS counted; None asks without statements in front.

    Raises:
        TaskError: a parameter is out of range, too few facts have a partner of as many tokens, or statements cannot
            fill a prompt to the length.

    Example:
        >>> from attnscope.tasks.recall_pairs import RecallPairs
        >>> row = RecallPairs(n=1, source="public").rows(None)[0]
        >>> row["corrupt"] == row["prompt"].replace(row["subject"], row["corrupt_subject"])
        True
    """

    name: ClassVar[str] = "recall_pairs"
    n: int = 100
    seed: int = 0
    source: Source = "pocket"
    split: world.Split = "test"
    length: int | None = None

    def __post_init__(self) -> None:
        check_source(self.name, self.source, self.split)
        if self.n < 1:
            raise TaskError("recall_pairs n", found=self.n, expected="at least 1")

    def rows(
        self, tokenizer: Any, lengths: Sequence[int] | None = None, beside: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the pairs as plain dictionaries, unchecked; without a tokenizer they have text only.

        Args:
            tokenizer: of the model.
            lengths: tokens of each prompt, BOS counted, in place of `length`.
            beside: a text for each prompt that holds neither of its answers; only without lengths.
        """
        rng = random.Random(f"recall pairs:{self.source}:{self.split}:{self.seed}")
        if lengths is None and self.length is not None:
            lengths = [self.length] * self.n
        pool = self._pool(tokenizer, rng)
        if beside is not None:
            found = _apart(pool, beside)
        elif tokenizer is None or lengths is None:
            found = [(*pair, list[Fact]()) for pair in pool[: self.n]]
        else:
            found = _filled(tokenizer, rng, pool, Filler(tokenizer, self.source), lengths)
        if len(found) < self.n:
            raise TaskError(
                f"recall_pairs n with source {self.source!r}" + (" and a length" if lengths is not None else ""),
                found=f"{len(found)} facts that have a partner of as many tokens with another answer",
                expected=f"at least n, which is {self.n}",
                fix="Ask for fewer pairs.",
            )
        return [_row(tokenizer, *each) for each in found]

    def build(self, tokenizer: Any) -> Dataset:
        """Return the pairs."""
        return pair_set(self.name, self.rows(tokenizer))

    def _pool(self, tokenizer: Any, rng: random.Random) -> list[tuple[Fact, Fact]]:
        """Return every fact once, in random order, with a partner of the same relation, wording and token count."""
        facts = list(facts_to_ask(self.source, self.split))
        alike: dict[tuple[Any, ...], list[Fact]] = {}
        shapes = {fact: _shape(tokenizer, fact) for fact in facts}
        for fact, shape in shapes.items():
            alike.setdefault(shape, []).append(fact)
        values = {fact.value for fact in facts}
        first = {value: value if tokenizer is None else word_ids(tokenizer, value)[0] for value in values}
        rng.shuffle(facts)
        pool: dict[tuple[str, str], tuple[Fact, Fact]] = {}
        for fact in facts:
            partners = [other for other in alike[shapes[fact]] if first[other.value] != first[fact.value]]
            if partners and (fact.subject, fact.relation) not in pool:
                pool[fact.subject, fact.relation] = fact, rng.choice(partners)
        return list(pool.values())


def _shape(tokenizer: Any, fact: Fact) -> tuple[Any, ...]:
    tokens = 0 if tokenizer is None else len(world.encode(tokenizer, f" {fact.stem}"))
    return fact.relation, fact.wording, tokens


def _apart(pool: list[tuple[Fact, Fact]], beside: Sequence[str]) -> list[tuple[Fact, Fact, list[Fact]]]:
    """Return, for each text, the next pair of whose answers none stands in it; fewer where the pairs are used up."""
    found, left = [], list(pool)
    for text in beside:
        words = set(re.findall(r"\w+", text))
        pair = next((pair for pair in left if not words & {pair[0].value, pair[1].value}), None)
        if pair is not None:
            left.remove(pair)
            found.append((*pair, list[Fact]()))
    return found


def _filled(
    tokenizer: Any, rng: random.Random, pool: list[tuple[Fact, Fact]], filler: Filler, lengths: Sequence[int]
) -> list[tuple[Fact, Fact, list[Fact]]]:
    """Return, for each length, the next pair that statements can fill to it, and these statements."""
    found, left = [], list(pool)
    for i, length in enumerate(lengths):
        for asked, other in left:
            bare = len(world.with_bos(tokenizer, world.encode(tokenizer, f"{LEAD} {asked.stem}")))
            taken = {asked.subject, other.subject, asked.value, other.value}
            shown = filler.draw(rng, length - bare, taken)
            if shown is not None:
                left.remove((asked, other))
                found.append((asked, other, shown))
                break
        else:
            raise TaskError(
                f"recall_pairs length of pair {i}",
                found=f"none of {len(left)} unused facts that whole statements fill to {length} tokens",
                expected="a length that a fact and whole statements add up to",
                fix="Ask for longer prompts or fewer pairs, or leave the length out.",
            )
    return found


def _row(tokenizer: Any, asked: Fact, other: Fact, shown: Sequence[Fact]) -> dict[str, Any]:
    before = LEAD + "".join(fact.sentence for fact in shown)
    row = pair_row(
        tokenizer,
        prompt=f"{before} {asked.stem}",
        corrupt=f"{before} {other.stem}",
        answer=f" {asked.value}",
        wrong=f" {other.value}",
        subject=asked.subject,
        corrupt_subject=other.subject,
        relation=asked.relation,
        wording=asked.wording,
        shown=len(shown),
    )
    if tokenizer is not None:
        (subject,) = re.finditer(rf"\b{re.escape(asked.subject)}\b", asked.stem)
        start = len(before) + 1 + subject.start()
        row["subject_position"] = token_at(tokenizer, row["prompt"], start - 1)
        row["subject_last_position"] = token_at(tokenizer, row["prompt"], start + len(asked.subject)) - 1
        row["end_position"] = len(row["input_ids"]) - 1
    return row
