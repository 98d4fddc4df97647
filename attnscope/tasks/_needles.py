"""Needles in a haystack, token by token: where every answer token stands is known by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import TaskError
from . import _world as world


@dataclass(frozen=True)
class NeedleText:
    """A sentence with an answer in it, and the question that asks for it.

    Attributes:
        before: of the sentence, up to the answer.
        answer: with its leading space, where it has one.
        after: rest of the sentence.
        question: what stands at the end of the prompt, right before the answer.
        key: what the needle is about; needles of one prompt have different keys.
        template: index of its wording.
        kind: of needle.
    """

    before: str
    answer: str
    after: str
    question: str
    key: str
    template: int = 0
    kind: str = "user"


@dataclass(frozen=True)
class NeedleTokens:
    """A needle as token ids: `ids[start:stop]` is the answer."""

    ids: tuple[int, ...]
    start: int
    stop: int
    question: tuple[int, ...]

    @property
    def answer(self) -> tuple[int, ...]:
        """Ids of the answer."""
        return self.ids[self.start : self.stop]


def tokens_of(tokenizer: Any, needle: NeedleText) -> NeedleTokens | None:
    """Return a needle's tokens; None where the tokenizer joins the answer with its neighbours in one token.

    The sentence is read as a whole, as it would be in a text; the answer's tokens are those between its first and its
    last character.

    Args:
        tokenizer: of transformers; one without offsets must read the sentence as it reads its parts.
        needle: the sentence.
    """
    before, answer, after = needle.before, needle.answer, needle.after
    question = tuple(world.encode(tokenizer, needle.question))
    if not getattr(tokenizer, "is_fast", False):
        parts = [world.encode(tokenizer, part) for part in (before, answer, after)]
        ids = tuple(world.encode(tokenizer, before + answer + after))
        if ids != tuple(token for part in parts for token in part) or not parts[1]:
            return None
        return NeedleTokens(ids, len(parts[0]), len(parts[0]) + len(parts[1]), question)
    read = tokenizer(before + answer + after, add_special_tokens=False, return_offsets_mapping=True)
    first, last = len(before), len(before) + len(answer)
    spans = [tuple(span) for span in read["offset_mapping"]]
    inside = [i for i, (low, high) in enumerate(spans) if low < last and high > first and high > low]
    if not inside:
        return None
    start, stop = inside[0], inside[-1] + 1
    spaces = len(answer) - len(answer.lstrip())  # a token's offsets may leave out the space that it begins with
    if not first <= spans[start][0] <= first + spaces or spans[stop - 1][1] != last:
        return None
    return NeedleTokens(tuple(read["input_ids"]), start, stop, question)


def lay(
    tokenizer: Any, prose: Sequence[int], start: int, length: int, needles: Sequence[tuple[float, NeedleTokens]]
) -> dict[str, Any]:
    """Return one prompt: BOS, prose with the needles in it, and the first needle's question.

    Args:
        tokenizer: gives BOS.
        prose: the haystack, more tokens than the prompt has room for.
        start: where in the prose the prompt begins.
        length: tokens of prompt and answer together.
        needles: (depth 0..1, tokens); the first one is asked for. A needle stands behind the nearest sentence's end
            that is at most a twentieth of the prose before its depth, or at its depth.

    Raises:
        TaskError: no room for 8 tokens of prose, or too little prose.
    """
    asked = needles[0][1]
    bos = len(world.with_bos(tokenizer, []))
    room = length - bos - sum(len(n.ids) for _, n in needles) - len(asked.question) - len(asked.answer)
    if room < 8 or start + room > len(prose):
        raise TaskError(
            f"needle length {length}",
            found=f"room for {room} tokens of a haystack of {len(prose)}",
            expected="at least 8, and fewer than the haystack has",
            fix="Change the length, or give more text as haystack.",
        )
    hay, ends = list(prose[start : start + room]), frozenset((world.encode(tokenizer, ".")[-1],))
    reach = min(120, max(8, room // 20))
    cuts = [world.place_after_sentence(hay, round(depth * room), ends, reach) for depth, _ in needles]
    ids = world.with_bos(tokenizer, [])
    source: list[int] = []
    taken = 0
    for i in sorted(range(len(needles)), key=lambda i: (cuts[i], i)):
        ids += hay[taken : cuts[i]]
        taken = cuts[i]
        if i == 0:
            source = list(range(len(ids) + asked.start, len(ids) + asked.stop))
        ids += needles[i][1].ids
    ids += [*hay[taken:], *asked.question]
    return {
        "input_ids": ids,
        "answer_ids": list(asked.answer),
        "source_positions": source,
        "question_position": len(ids) - len(asked.question),
        "length": len(ids) + len(asked.answer),
        "depth": float(needles[0][0]),
    }
