"""Greater-than: an end year must lie after the start year."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import TaskError
from ._pairs import pair_row, pair_set
from ._words import token_at, usable_words
from ._years import Years, years_of

if TYPE_CHECKING:
    from datasets import Dataset

NOUNS = tuple(
    "war trip journey fight strike reign project march study search trial plan work peace conflict siege voyage "
    "dispute building festival drought revolt career marriage treaty".split()
)


@dataclass(frozen=True)
class GreaterThan:
    """Sentences such as "The war lasted from the year 1732 to the year 17", whose next number must be above 32.

    A pair set (2305.00586, in our own words): `input_ids`, `corrupt_ids`, `answer_ids`, `wrong_ids`, `prompt`,
    `corrupt`, `answer`, `wrong`, and `answer_set` and `wrong_set`: the next tokens that make the end year later than
    the start year, and those that do not. `answer` is drawn from the first set; `wrong` is drawn from the second, and
    right for the corrupt prompt, whose start year is the earliest of its century. Also `year_position` (of the start
    year's compared token), `end_position`, `unit`.

    What is compared depends on how the tokenizer splits years (column `unit`):
    `two_digits`: century and year are one token each, as in GPT-2 (the paper's form; corrupt start 01).
    `decade`: one token a digit. Start years end in 9, so the next digit alone decides: 1739 to 17 must go on with 4
    to 9 (corrupt start 09).
    `last_digit`: three digits and one, as in Llama 3. 1734 to 173 must go on with 5 to 9 (corrupt start 1730).

    Attributes:
        n: pairs.
        seed: of nouns, years and answers.
        centuries: of the years, from 10 to 99; the paper's are 11 to 17.

    Raises:
        TaskError: a parameter is out of range, or the tokenizer splits years in another way.

    Example:
        >>> from attnscope.tasks.greater_than import GreaterThan
        >>> GreaterThan(n=1, centuries=(17,)).rows(None)[0]["prompt"].endswith("to the year 17")
        True
    """

    name: ClassVar[str] = "greater_than"
    n: int = 100
    seed: int = 0
    centuries: tuple[int, ...] = (11, 12, 13, 14, 15, 16, 17)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise TaskError("greater_than n", found=self.n, expected="at least 1")
        if not self.centuries or not all(10 <= century <= 99 for century in self.centuries):
            raise TaskError("greater_than centuries", found=self.centuries, expected="whole numbers from 10 to 99")

    def rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """Return the pairs as plain dictionaries, unchecked; without a tokenizer they have text only."""
        nouns, years = usable_words(tokenizer, NOUNS, 2, "nouns"), years_of(tokenizer, self.centuries)
        rng = random.Random(f"greater than:{self.seed}")
        return [self._row(tokenizer, rng, rng.choice(nouns), years) for _ in range(self.n)]

    def _row(self, tokenizer: Any, rng: random.Random, noun: str, years: Years) -> dict[str, Any]:
        prefix, start = rng.choice(years.starts)
        above = [number for number in years.tokens if number > start]
        below = [number for number in years.tokens if number <= start]
        before = f"The {noun} lasted from the year {prefix}"
        after = f"{years.tail} to the year {prefix}"
        answer, wrong = rng.choice(above), rng.choice([number for number in below if number > years.earliest])
        row = pair_row(
            tokenizer,
            prompt=f"{before}{start}{after}",
            corrupt=f"{before}{years.earliest}{after}",
            answer=answer,
            wrong=wrong,
            answers=([years.tokens[answer]], [years.tokens[wrong]]),
            unit=years.unit,
        )
        if tokenizer is not None:
            row["answer_set"] = [years.tokens[number] for number in above]
            row["wrong_set"] = [years.tokens[number] for number in below]
            row["year_position"] = token_at(tokenizer, row["prompt"], len(before))
            row["end_position"] = len(row["input_ids"]) - 1
        return row

    def build(self, tokenizer: Any) -> Dataset:
        """Return the pairs."""
        return pair_set(self.name, self.rows(tokenizer))
