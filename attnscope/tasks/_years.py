"""How a tokenizer splits years, and which part of one can be compared token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import TaskError
from . import _world as world

Unit = Literal["two_digits", "decade", "last_digit"]
_STEM = "the year "


@dataclass(frozen=True)
class Years:
    """Years as prefix + compared number + tail, where the compared number is one token.

    Attributes:
        unit: which digits are compared.
        tokens: compared number → its token, in rising order.
        starts: (prefix, compared number) of every usable start year.
        earliest: compared number of the corrupt start year.
        tail: digits behind the compared number.
    """

    unit: Unit
    tokens: dict[str, int]
    starts: tuple[tuple[str, str], ...]
    earliest: str
    tail: str


def years_of(tokenizer: Any, centuries: Sequence[int]) -> Years:
    """Return how years can be compared with this tokenizer: by two digits, else the decade, else the last digit.

    Args:
        tokenizer: None gives two digits, without tokens.
        centuries: first two digits of the years.

    Raises:
        TaskError: in none of these ways; the split of one year is named.

    Example:
        >>> years_of(None, (17,)).starts[0]
        ('17', '02')
    """
    two, one = [f"{number:02d}" for number in range(100)], [str(number) for number in range(10)]
    prefixes = [str(century) for century in centuries]
    longer = [f"{prefix}{digit}" for prefix in prefixes for digit in range(10)]
    forms: list[tuple[Unit, list[str], list[str], str, str]] = [
        ("two_digits", prefixes, two, "01", ""),
        ("decade", prefixes, one, "0", "9"),
        ("last_digit", longer, one, "0", ""),
    ]
    for unit, firsts, numbers, earliest, tail in forms:
        tokens, starts = _table(tokenizer, firsts, numbers, tail)
        usable = {prefix for prefix, number in starts if number == earliest}
        starts = [(prefix, n) for prefix, n in starts if prefix in usable and earliest < n < numbers[-1]]
        if len(tokens) == len(numbers) and starts:
            return Years(unit, tokens, tuple(starts), earliest, tail)
    year = f"{prefixes[-1]}32"
    pieces = tokenizer.convert_ids_to_tokens(world.encode(tokenizer, f"{_STEM}{year}"))
    raise TaskError(
        "years for greater_than",
        found=f"'{_STEM}{year}' in the pieces {pieces}",
        expected="century and year as two tokens, or one token a digit, or three digits and one",
        fix="Use another task for this tokenizer.",
    )


def _table(
    tokenizer: Any, prefixes: Sequence[str], numbers: Sequence[str], tail: str
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return every number's token, and the (prefix, number) whose year splits as prefix, number, tail."""
    if tokenizer is None:
        return dict.fromkeys(numbers, -1), [(prefix, number) for prefix in prefixes for number in numbers]
    found: dict[str, set[int]] = {number: set() for number in numbers}
    starts = []
    for prefix in prefixes:
        head = world.encode(tokenizer, f"{_STEM}{prefix}")
        for number in numbers:
            ids = world.encode(tokenizer, f"{_STEM}{prefix}{number}{tail}")
            if ids[: len(head)] == head and len(ids) == len(head) + 1 + len(tail):
                found[number].add(ids[len(head)])
                starts.append((prefix, number))
    tokens = {number: next(iter(ids)) for number, ids in found.items() if len(ids) == 1}
    return tokens if len(set(tokens.values())) == len(tokens) else {}, starts
