"""Repeated random tokens: the prompts on which copying heads show."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from ._vocabulary import vocabulary

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Repeats:
    """BOS, then one random sequence of distinct tokens, written several times over (2209.11895).

    Columns: `input_ids`, `period` (tokens a copy), `copies`, `prefix` (tokens before the first copy: 1 with BOS).

    Attributes:
        n: prompts.
        period: tokens a copy.
        copies: how often the sequence stands there; two for induction scores, four in RazorAttention.
        seed: of the random sequences.
        vocab_size: draw ids below this; None takes the tokenizer's. Special tokens are never drawn.
        bos_token_id: first token where there is no tokenizer; None for a model without one. Never drawn.

    Raises:
        TaskError: fewer ordinary tokens than a copy holds, sizes below 1 (copies below 2), or a BOS that is no token.

    Example:
        >>> Repeats(n=2, period=3, vocab_size=9).build()["input_ids"][0][:3] != []
        True
    """

    name: ClassVar[str] = "repeats"
    n: int = 16
    period: int = 100
    copies: int = 2
    seed: int = 0
    vocab_size: int | None = None
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        for field, least in (("n", 1), ("period", 2), ("copies", 2)):
            if getattr(self, field) < least:
                raise TaskError(f"repeats {field}", found=getattr(self, field), expected=f"at least {least}")

    def build(self, tokenizer: Any = None) -> Dataset:
        """Draw the prompts; without a tokenizer `vocab_size` is needed, and BOS is `bos_token_id`."""
        from datasets import Dataset

        prefix, ordinary = vocabulary(self.name, tokenizer, self.vocab_size, self.bos_token_id)
        if len(ordinary) < self.period:
            raise TaskError(
                "repeats period",
                found=self.period,
                expected=f"at most the {len(ordinary)} ordinary tokens of the vocabulary",
            )
        rng = random.Random(f"repeats:{self.seed}")
        return Dataset.from_dict(
            {
                "input_ids": [prefix + rng.sample(ordinary, self.period) * self.copies for _ in range(self.n)],
                "period": [self.period] * self.n,
                "copies": [self.copies] * self.n,
                "prefix": [len(prefix)] * self.n,
            }
        )
