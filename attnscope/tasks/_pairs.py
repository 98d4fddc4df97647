"""Clean and corrupt prompts of equal length: how a pair becomes tokens, and which pairs can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import TaskError
from . import _world as world

if TYPE_CHECKING:
    from datasets import Dataset

NAMED = 3


def continuation(tokenizer: Any, prompt: str, answer: str) -> list[int]:
    """Return the ids that an answer adds to a prompt.

    Raises:
        TaskError: the tokenizer joins the prompt's end with the answer.
    """
    ids, whole = world.encode(tokenizer, prompt), world.encode(tokenizer, prompt + answer)
    if whole[: len(ids)] != ids or len(whole) == len(ids):
        raise TaskError(
            f"prompt {prompt!r} with answer {answer!r}",
            found="a tokenizer that joins the prompt's end with its answer",
            expected="answers that begin at a token",
            fix="Begin the answer with a space, and end the prompt without one.",
        )
    return whole[len(ids) :]


def pair_row(
    tokenizer: Any,
    *,
    prompt: str,
    corrupt: str,
    answer: str,
    wrong: str,
    answers: tuple[list[int], list[int]] | None = None,
    **columns: Any,
) -> dict[str, Any]:
    """Return one pair as a row of a pair set, not yet checked.

    Args:
        tokenizer: None gives the text columns only.
        prompt: the clean prompt, without its answer.
        corrupt: the corrupt prompt.
        answer: the clean prompt's answer, with its leading space.
        wrong: the answer it is contrasted with, with its leading space.
        answers: ids of both answers, where they are known; None takes what the answers add to the clean prompt.
        columns: more columns of the row.

    Raises:
        TaskError: the tokenizer joins a prompt's end with the answer.

    Example:
        >>> pair_row(None, prompt="a", corrupt="b", answer=" c", wrong=" d")["wrong"]
        ' d'
    """
    ids: dict[str, Any] = {}
    if tokenizer is not None:
        if answers is None:
            answers = continuation(tokenizer, prompt, answer), continuation(tokenizer, prompt, wrong)
        sides = [world.with_bos(tokenizer, world.encode(tokenizer, text)) for text in (prompt, corrupt)]
        ids = dict(zip(("input_ids", "corrupt_ids", "answer_ids", "wrong_ids"), (*sides, *answers), strict=True))
    return {**ids, "prompt": prompt, "corrupt": corrupt, "answer": answer, "wrong": wrong, **columns}


def problem(row: dict[str, Any]) -> str | None:
    """Return why a pair cannot be used, or None where it can.

    Example:
        >>> row = {"input_ids": [1, 2], "corrupt_ids": [1, 3, 4], "prompt": "x", "corrupt": "y z"}
        >>> problem(row)
        "2 and 3 tokens ('x', 'y z')"
    """
    clean, corrupt = row["input_ids"], row["corrupt_ids"]
    if len(clean) != len(corrupt):
        return f"{len(clean)} and {len(corrupt)} tokens ({row['prompt']!r}, {row['corrupt']!r})"
    if clean == corrupt:
        return f"the same tokens on both sides ({row['prompt']!r})"
    if row["answer_ids"][0] == row["wrong_ids"][0]:
        return f"answers {row['answer']!r} and {row['wrong']!r} both start with token {row['wrong_ids'][0]}"
    return None


def check_pairs(task: str, rows: Sequence[dict[str, Any]]) -> None:
    """Check that every pair has sides of equal length that differ, and answers that start with different tokens.

    Raises:
        TaskError: some do not; the first few are named, each with both counts.

    Example:
        >>> check_pairs("mine", [{"input_ids": [1], "corrupt_ids": [2], "answer_ids": [3], "wrong_ids": [4]}])
    """
    bad = [(i, found) for i, row in enumerate(rows) if (found := problem(row)) is not None]
    if bad:
        named = "; ".join(f"pair {i}: {found}" for i, found in bad[:NAMED])
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise TaskError(
            f"{task} pairs",
            found=f"{len(bad)} of {len(rows)} unusable: {named}{more}",
            expected="two sides of equally many tokens that differ, and answers that start with different tokens",
            fix="Use words that this tokenizer splits into equally many tokens, or leave these pairs out.",
        )


def pair_set(task: str, rows: Sequence[dict[str, Any]]) -> Dataset:
    """Return checked rows as a pair set.

    Raises:
        TaskError: see `check_pairs`.
    """
    from datasets import Dataset

    check_pairs(task, rows)
    return Dataset.from_list(list(rows))


def corrupt_prompts(pairs: Dataset) -> Dataset:
    """Return the corrupt prompts of a pair set as prompts of their own, with `wrong_ids` as their answers.

    Example:
        >>> from datasets import Dataset
        >>> row = {"input_ids": [1], "corrupt_ids": [2], "answer_ids": [3], "wrong_ids": [4]}
        >>> corrupt_prompts(Dataset.from_list([row]))[0]
        {'input_ids': [2], 'answer_ids': [4]}
    """
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": pairs["corrupt_ids"], "answer_ids": pairs["wrong_ids"]})
