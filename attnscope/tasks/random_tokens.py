"""Uniform random tokens: prompts for a model that has no tokenizer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from ._vocabulary import vocabulary

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class RandomTokens:
    """Prompts of one length: BOS where the model has one, then uniform random tokens other than BOS.

    They are not language: what a head does with them says how it works on noise. Columns: `input_ids`.

    Attributes:
        n: prompts.
        length: tokens a prompt, BOS included.
        seed: of the tokens.
        vocab_size: ids are drawn below this; None takes the tokenizer's.
        bos_token_id: first token where there is no tokenizer; None for a model without one. Never drawn.

    Raises:
        TaskError: a size is too small or absent, or BOS is no token of the vocabulary.

    Example:
        >>> rows = RandomTokens(n=2, length=5, vocab_size=9, bos_token_id=3).build()["input_ids"]
        >>> [row[0] for row in rows], [len(row) for row in rows], 3 in rows[0][1:]
        ([3, 3], [5, 5], False)
    """

    name: ClassVar[str] = "random_tokens"
    n: int = 16
    length: int = 512
    seed: int = 0
    vocab_size: int | None = None
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        for field, least in (("n", 1), ("length", 2), ("vocab_size", 2)):
            value = getattr(self, field)
            if value is not None and value < least:
                raise TaskError(f"random_tokens {field}", found=value, expected=f"at least {least}")

    def build(self, tokenizer: Any = None) -> Dataset:
        """Draw the prompts; without a tokenizer `vocab_size` is needed, and BOS is `bos_token_id`."""
        from datasets import Dataset

        prefix, ordinary = vocabulary(self.name, tokenizer, self.vocab_size, self.bos_token_id)
        rng, body = random.Random(f"random_tokens:{self.seed}:{self.length}"), self.length - len(prefix)
        return Dataset.from_dict({"input_ids": [prefix + rng.choices(ordinary, k=body) for _ in range(self.n)]})
