"""Teacher forcing: prompts that go on with their answers, and where each answer token is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import TaskError

if TYPE_CHECKING:
    from datasets import Dataset


def with_answers(prompts: Dataset) -> Dataset:
    """Return prompts whose `input_ids` end in the answer but for its last token.

    Adds `query_positions` (the position that predicts each answer token) and `target_ids` (the answer); a column
    `query_positions` that is there already is kept.

    Raises:
        TaskError: the prompts have no `answer_ids`, or one of them is empty.

    Example:
        >>> from datasets import Dataset
        >>> with_answers(Dataset.from_dict({"input_ids": [[7, 8]], "answer_ids": [[1, 2]]}))[0]["query_positions"]
        [1, 2]
    """
    if "answer_ids" not in prompts.column_names:
        raise TaskError("prompt set", found=f"columns {prompts.column_names}", expected="a column 'answer_ids'")

    def extend(row: dict) -> dict:
        ids, answer = row["input_ids"], row["answer_ids"]
        if not answer:
            raise TaskError("prompt set", found="an empty answer", expected="at least one answer token")
        where = row.get("query_positions") or list(range(len(ids) - 1, len(ids) - 1 + len(answer)))
        return {"input_ids": ids + answer[:-1], "query_positions": where, "target_ids": answer}

    from datasets import Dataset

    return Dataset.from_list([{**row, **extend(row)} for row in prompts])


def with_copies_as_answers(repeats: Dataset) -> Dataset:
    """Return repeats with `query_positions` and `target_ids`: every token that a copying model can know.

    Example:
        >>> from .repeats import Repeats
        >>> with_copies_as_answers(Repeats(n=1, period=3, vocab_size=9).build())[0]["query_positions"]
        [3, 4]
    """
    queries = [
        list(range(prefix + period, len(ids) - 1))
        for ids, prefix, period in zip(repeats["input_ids"], repeats["prefix"], repeats["period"], strict=True)
    ]
    targets = [[ids[q + 1] for q in row] for ids, row in zip(repeats["input_ids"], queries, strict=True)]
    return repeats.add_column("query_positions", queries).add_column("target_ids", targets)
