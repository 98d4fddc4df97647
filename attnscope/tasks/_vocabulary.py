"""Which tokens a task may draw at random, and which one comes first."""

from __future__ import annotations

from typing import Any

from ..core.errors import TaskError


def vocabulary(
    task: str, tokenizer: Any, vocab_size: int | None, bos_token_id: int | None
) -> tuple[list[int], list[int]]:
    """Return (BOS, or nothing where there is none; every ordinary token in order).

    Args:
        task: named in errors.
        tokenizer: gives BOS, the special tokens and, without `vocab_size`, the size; or None.
        vocab_size: ids are below this.
        bos_token_id: BOS where there is no tokenizer.

    Raises:
        TaskError: neither a tokenizer nor a size, or BOS is no token of the vocabulary.

    Example:
        >>> vocabulary("repeats", None, 4, 2)
        ([2], [0, 1, 3])
    """
    if tokenizer is not None:
        bos, size, special = tokenizer.bos_token_id, vocab_size or len(tokenizer), set(tokenizer.all_special_ids)
    elif vocab_size is not None:
        bos, size, special = bos_token_id, vocab_size, {bos_token_id}
        if bos is not None and not 0 <= bos < size:
            raise TaskError(
                f"{task} bos_token_id",
                found=bos,
                expected=f"an id below the vocabulary's {size}, or none",
                fix="Correct bos_token_id or vocab_size in the model's configuration.",
            )
    else:
        raise TaskError(task, found="neither a tokenizer nor vocab_size", expected="one of them")
    return [] if bos is None else [bos], [token for token in range(size) if token not in special]
