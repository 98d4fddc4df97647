"""A sentence to remember, hidden in English prose and asked for at the end."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from attnscope.core.errors import TaskError
from attnscope.core.paths import data_path
from attnscope.tasks import _world as world

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Needle:
    """Retrieval from a long context: a needle at a given depth of a haystack, and its beginning as the question.

    Columns: `input_ids` (the prompt with BOS, without the answer), `answer_ids`, `prompt`, `answer`,
    `source_positions` (where in `input_ids` each answer token stands inside the needle), `question_position` (where
    the question begins), `depth` (from 0 to 1), `length` (tokens of prompt and answer together), `kind`, `template`.
    The ids are concatenated piece by piece, so the positions are known, never searched for.

    Raises `TaskError` if the haystack is too short for the length, or a parameter is out of range.

    Example:
        >>> from attnscope.tasks.needle import Needle
        >>> Needle(n=4, length=512, depth=0.5).depth
        0.5
    """

    name: ClassVar[str] = "needle"

    n: int = 50
    seed: int = 0
    split: world.Split = "test"
    length: int = 1024
    depth: float | None = None
    kind: world.NeedleKind | None = "code"
    template: int | None = None
    haystack: str | None = None

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise TaskError("needle split", found=repr(self.split), expected="'train' or 'test'")
        if self.kind not in (None, "code", "word"):
            raise TaskError("needle kind", found=repr(self.kind), expected="'code' or 'word'", fix="Use None for both.")
        if self.depth is not None and not 0 <= self.depth <= 1:
            raise TaskError(
                "needle depth",
                found=self.depth,
                expected="0 (start) to 1 (end)",
                fix="Use None to spread depths evenly.",
            )
        if self.template is not None and not 0 <= self.template < len(world.NEEDLE_STEMS):
            raise TaskError(
                "needle template",
                found=self.template,
                expected=f"0 to {len(world.NEEDLE_STEMS) - 1}",
                fix="Use None to draw one for each item.",
            )
        if self.n < 1:
            raise TaskError("needle n", found=self.n, expected="at least 1")

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """The items as plain dictionaries."""
        text = self.haystack
        if text is None:
            text = data_path("pocket/heldout.txt").read_text(encoding="utf-8")
        prose = world.encode(tokenizer, text)
        ends = frozenset((world.encode(tokenizer, ".")[-1],))
        rng = random.Random(f"needle:{self.split}:{self.seed}:{self.length}")
        return [self._row(tokenizer, rng, prose, ends, i) for i in range(self.n)]

    def _row(
        self, tokenizer: Any, rng: random.Random, prose: list[int], ends: frozenset[int], i: int
    ) -> dict[str, Any]:
        made = world.needle_text(rng, self.split, self.kind, self.template)
        stem, value = world.encode(tokenizer, " " + made.stem), world.encode(tokenizer, made.value)
        needle = [*stem, *value, *world.encode(tokenizer, ".")]
        bos = len(world.with_bos(tokenizer, []))
        room = self.length - bos - len(needle) - len(stem) - len(value)
        if room < 8 or room >= len(prose):
            raise TaskError(
                f"needle length {self.length}",
                found=f"room for {room} tokens of a haystack of {len(prose)}",
                expected="at least 8, and fewer than the haystack has",
                fix="Change the length, or give more text as haystack.",
            )
        depth = self.depth if self.depth is not None else (i / (self.n - 1) if self.n > 1 else 0.5)
        start = rng.randrange(len(prose) - room)
        hay = prose[start : start + room]
        cut = world.place_after_sentence(hay, round(depth * room), ends)
        ids = world.with_bos(tokenizer, [*hay[:cut], *needle, *hay[cut:], *stem])
        first = bos + cut + len(stem)
        return {
            "input_ids": ids,
            "answer_ids": value,
            "prompt": tokenizer.decode(ids[bos:]),
            "answer": made.value,
            "source_positions": list(range(first, first + len(value))),
            "question_position": len(ids) - len(stem),
            "depth": float(depth),
            "length": len(ids) + len(value),
            "kind": made.kind,
            "template": made.template,
        }

    def build(self, tokenizer: Any) -> Dataset:
        """The items as a dataset."""
        from datasets import Dataset

        return Dataset.from_list(self.rows(tokenizer))
