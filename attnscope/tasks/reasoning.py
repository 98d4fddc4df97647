"""Puzzles whose answer follows from the prompt alone, in several steps."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from attnscope.core.errors import TaskError
from attnscope.tasks import _world as world

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Reasoning:
    """Multi-step puzzles: objects that change hands, chains of comparisons, and two-hop look-ups.

    Columns: `input_ids` (the prompt with BOS, without the answer), `answer_ids`, `prompt`, `answer`, `kind`,
    `steps`. In split `test` every combination of names and objects is one that training never shows.

    Raises `TaskError` if the kind or the split is unknown, or the kind has no puzzle of that many steps.

    Example:
        >>> from attnscope.tasks.reasoning import Reasoning
        >>> Reasoning(n=1, kind="comparison", steps=3).rows(None)[0]["steps"]
        3
    """

    name: ClassVar[str] = "reasoning"

    n: int = 200
    seed: int = 0
    split: world.Split = "test"
    kind: world.PuzzleKind | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise TaskError("reasoning split", found=repr(self.split), expected="'train' or 'test'")
        if self.kind not in (None, *world.PUZZLE_KINDS):
            raise TaskError(
                "reasoning kind",
                found=repr(self.kind),
                expected=f"one of {', '.join(world.PUZZLE_KINDS)}",
                fix="Leave it out for all of them.",
            )
        if self.n < 1:
            raise TaskError("reasoning n", found=self.n, expected="at least 1")
        if self.steps is not None:
            allowed = {"transfer": (2, 5), "comparison": (2, 4), "lookup": (2, 2), None: (2, 2)}[self.kind]
            if not allowed[0] <= self.steps <= allowed[1]:
                raise TaskError(
                    f"reasoning steps for kind {self.kind or 'any'!r}",
                    found=self.steps,
                    expected=f"{allowed[0]} to {allowed[1]}",
                    fix="Change the steps, or name another kind.",
                )

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """The items as plain dictionaries; without a tokenizer they have text only."""
        rng, rows = random.Random(f"reasoning:{self.split}:{self.seed}"), []
        for i in range(self.n):
            kind = self.kind or world.PUZZLE_KINDS[i % len(world.PUZZLE_KINDS)]
            made = world.puzzle(rng, self.split, kind, self.steps)
            prompt, answer = world.puzzle_prompt(made), f" {made.questions[0][1]}"
            row: dict[str, Any] = {}
            if tokenizer is not None:
                row["input_ids"] = world.with_bos(tokenizer, world.encode(tokenizer, prompt))
                row["answer_ids"] = world.encode(tokenizer, answer)
            rows.append(row | {"prompt": prompt, "answer": answer, "kind": made.kind, "steps": made.steps})
        return rows

    def build(self, tokenizer: Any) -> Dataset:
        """The items as a dataset."""
        from datasets import Dataset

        return Dataset.from_list(self.rows(tokenizer))
