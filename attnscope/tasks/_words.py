"""Words that a tokenizer splits alike, and where they stand in a prompt."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import TaskError
from . import _world as world


def word_ids(tokenizer: Any, word: str) -> list[int]:
    """Return the ids of a word in the middle of a sentence."""
    before, whole = world.encode(tokenizer, "the"), world.encode(tokenizer, f"the {word}")
    return whole[len(before) :] if whole[: len(before)] == before else world.encode(tokenizer, f" {word}")


def usable_words(tokenizer: Any, words: Sequence[str], least: int, what: str, *, answers: bool = False) -> list[str]:
    """Return the words of one token count, in the order given.

    Single tokens come first; where too few words are single tokens, the count that most words have is taken. Words
    with an unknown token are left out.

    Args:
        tokenizer: None keeps every word.
        words: candidates.
        least: words needed.
        what: named in the error.
        answers: keep no two words that start with the same token.

    Raises:
        TaskError: fewer than `least` are left; the words are named by count.

    Example:
        >>> usable_words(None, ["red", "blue"], 2, "colours")
        ['red', 'blue']
    """
    if tokenizer is None:
        return list(words)
    unknown = getattr(tokenizer, "unk_token_id", None)
    by_count: dict[int, dict[Any, str]] = {}
    for word in words:
        ids = word_ids(tokenizer, word)
        if ids and (unknown is None or unknown not in ids):
            by_count.setdefault(len(ids), {}).setdefault(ids[0] if answers else word, word)
    best = max(by_count, key=lambda count: (len(by_count[count]), -count), default=1)
    kept = list(by_count.get(1, {}).values())
    if len(kept) < least:
        kept = list(by_count.get(best, {}).values())
    if len(kept) < least:
        listed = [f"of {count} token(s) {', '.join(by_count[count].values())}" for count in sorted(by_count)]
        raise TaskError(
            f"{what} for this tokenizer",
            found="; ".join(listed) or "none that it knows",
            expected=f"at least {least} of one token count{' that start with different tokens' if answers else ''}",
            fix="Use another task or tokenizer, or write your own pairs (task `pairs`).",
        )
    return kept


def fill(template: str, words: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """Return a template with its slots filled, and where each slot's word (or the space before it) begins.

    Example:
        >>> fill("On {place} by {name}", {"place": "Mars", "name": "Tom"})
        ('On Mars by Tom', {'place': 2, 'name': 10})
    """
    text, starts = "", dict[str, int]()
    for literal, slot, _, _ in string.Formatter().parse(template):
        text += literal
        if slot is not None:
            starts[slot] = len(text.rstrip(" "))
            text += words[slot]
    return text, starts


def token_at(tokenizer: Any, text: str, start: int) -> int:
    """Return the index, BOS counted, of the token that begins at a character of a prompt.

    Raises:
        TaskError: no token begins there.
    """
    before, whole = world.encode(tokenizer, text[:start]), world.encode(tokenizer, text)
    if whole[: len(before)] != before:
        raise TaskError(
            f"prompt {text!r}",
            found=f"a tokenizer that joins {text[:start][-12:]!r} with {text[start:][:12]!r}",
            expected="words that begin at a token",
            fix="Use a tokenizer that splits at spaces.",
        )
    return len(world.with_bos(tokenizer, before))
