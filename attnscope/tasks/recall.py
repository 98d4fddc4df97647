"""Facts that the pocket model was trained on, asked in a wording it never saw them in."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from attnscope.core.errors import TaskError
from attnscope.tasks import _world as world

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Recall:
    """Questions whose answer is stored in the weights, not in the prompt.

    Columns: `input_ids` (the prompt with BOS, without the answer), `answer_ids`, `prompt`, `answer`, `entity`,
    `relation`, `wording`. Split `test` asks each fact in its held-out wording, `train` in a trained one.

    Raises `TaskError` if `n` is more than the facts there are, or the split is unknown.

    Example:
        >>> from attnscope.tasks.recall import Recall
        >>> Recall(n=2, seed=1).rows(None)[0]["prompt"].startswith("Fact: ")
        True
    """

    name: ClassVar[str] = "recall"

    n: int = 200
    seed: int = 0
    split: world.Split = "test"

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise TaskError("recall split", found=repr(self.split), expected="'train' or 'test'")
        if not 1 <= self.n <= len(world.FACTS):
            raise TaskError(
                "recall n",
                found=self.n,
                expected=f"1 to {len(world.FACTS)}, the facts there are",
                fix="Ask for fewer questions.",
            )

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """The items as plain dictionaries; without a tokenizer they have text only."""
        rng, rows = random.Random(f"recall:{self.split}:{self.seed}"), []
        for entity, relation in rng.sample(world.FACTS, self.n):
            held_out = world.held_out_wording(entity, relation)
            wording = held_out if self.split == "test" else rng.choice([w for w in range(4) if w != held_out])
            prompt = f"Fact: {world.fact_stem(entity, relation, wording)}"
            answer = f" {world.fact_value(entity, relation)}"
            row: dict[str, Any] = {}
            if tokenizer is not None:
                row["input_ids"] = world.with_bos(tokenizer, world.encode(tokenizer, prompt))
                row["answer_ids"] = world.encode(tokenizer, answer)
            row |= {"prompt": prompt, "answer": answer}
            rows.append(row | {"entity": entity, "relation": relation, "wording": wording})
        return rows

    def build(self, tokenizer: Any) -> Dataset:
        """The items as a dataset."""
        from datasets import Dataset

        return Dataset.from_list(self.rows(tokenizer))
