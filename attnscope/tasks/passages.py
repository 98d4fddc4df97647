"""Passages of prose with one needle each, and a question about one of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from . import _world as world
from ._needles import NeedleText, tokens_of
from ._sources import read_documents

if TYPE_CHECKING:
    from datasets import Dataset

NULL_QUESTION = " N/A"


@dataclass(frozen=True)
class Passages:
    """Prompts for QRHead (2506.09944): which heads move from a question to the passage that answers it?

    Columns: `input_ids` (passages and question), `gold_span` (of the passage asked for), `question_positions`,
    `answer_ids`, `answer`, `gold` (index of the passage). `null()` gives the same prompts with the question `N/A`.

    Attributes:
        n: prompts; the passage asked for moves through all places.
        passages: in a prompt.
        length: tokens of a prompt, about; at least 24 a passage.
        haystack: your own text, as `text` takes it; None takes the embedded English.
        seed: of prose, keys and values.
        split: of keys and wordings.

    Raises:
        TaskError: too few tokens a passage, fewer than two passages, or a tokenizer that joins every answer with its
            neighbours.

    Example:
        >>> Passages(n=4).passages
        8
    """

    name: ClassVar[str] = "passages"
    n: int = 16
    passages: int = 8
    length: int = 768
    haystack: str | None = None
    seed: int = 0
    split: world.Split = "test"

    def __post_init__(self) -> None:
        if self.n < 1 or self.passages < 2:
            raise TaskError("passages", found=f"{self.n} prompts of {self.passages}", expected="prompts of at least 2")
        if self.length // self.passages < 40:
            raise TaskError("passages", found=f"{self.length // self.passages} tokens each", expected="at least 40")

    def build(self, tokenizer: Any) -> Dataset:
        """Return the prompts with their questions."""
        return self._build(tokenizer, None)

    def null(self, tokenizer: Any) -> Dataset:
        """Return the same prompts with a question that asks for nothing."""
        return self._build(tokenizer, NULL_QUESTION)

    def _build(self, tokenizer: Any, question: str | None) -> Dataset:
        from datasets import Dataset

        prose = world.encode(tokenizer, "\n".join(read_documents(self.haystack, "text", "train")))
        rng = random.Random(f"passages:{self.split}:{self.seed}")
        return Dataset.from_list([self._row(tokenizer, rng, prose, i, question) for i in range(self.n)])

    def _row(
        self, tokenizer: Any, rng: random.Random, prose: list[int], i: int, question: str | None
    ) -> dict[str, Any]:
        gold, each = i % self.passages, self.length // self.passages
        if len(prose) <= each:
            raise TaskError("passages", found=f"a haystack of {len(prose)} tokens", expected=f"more than {each}")
        gap = world.encode(tokenizer, "\n")
        ids, spans, asked = world.with_bos(tokenizer, []), [], []
        keys: set[str] = set()
        for _ in range(self.passages):
            text, read = self._needle(tokenizer, rng, keys)
            room = max(8, each - len(read.ids) - len(gap))
            start = rng.randrange(len(prose) - room)
            cut = rng.randrange(room)
            hay = prose[start : start + room]
            spans.append((len(ids), len(ids) + room + len(read.ids)))
            ids += [*hay[:cut], *read.ids, *hay[cut:], *gap]
            asked.append((text, read))
        text, read = asked[gold]
        tail = list(read.question) if question is None else world.encode(tokenizer, question)
        return {
            "input_ids": ids + tail,
            "question_positions": list(range(len(ids), len(ids) + len(tail))),
            "gold_span": list(spans[gold]),
            "gold": gold,
            "answer_ids": list(read.answer),
            "answer": text.answer.strip(),
        }

    def _needle(self, tokenizer: Any, rng: random.Random, keys: set[str]) -> tuple[NeedleText, Any]:
        for _ in range(1000):
            made = world.needle_text(rng, self.split, "code")
            if made.key in keys:
                continue
            text = NeedleText(f" {made.stem}", made.value, ".", f" {made.stem}", made.key)
            read = tokens_of(tokenizer, text)
            if read is not None:
                keys.add(made.key)
                return text, read
        raise TaskError(
            "passages",
            found="a tokenizer that joins every answer with its neighbours, or too many passages",
            expected="answers that begin and end at a token, and fewer passages than keys",
        )
