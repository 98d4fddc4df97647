"""Many short items of one task, each with its answer, packed into prompts of one length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnscope.core.errors import TaskError
from attnscope.tasks import _world as world

if TYPE_CHECKING:
    from datasets import Dataset


def packed(items: Dataset, tokenizer: Any, n: int, length: int) -> Dataset:
    """Return up to `n` prompts of `length` tokens: BOS, then items with their answers, with EOS between them.

    Args:
        items: with columns `input_ids` (BOS first, where the tokenizer has one) and `answer_ids`.
        tokenizer: gives BOS and EOS, where it has them.
        n: prompts at most; fewer where the items are used up.
        length: tokens a prompt, BOS included.

    Raises:
        TaskError: the items do not fill one prompt.
    """
    from datasets import Dataset

    bos = world.with_bos(tokenizer, [])
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    body, buffer, prompts = length - len(bos), list[int](), list[list[int]]()
    for ids, answer in zip(items["input_ids"], items["answer_ids"], strict=True):
        buffer += [*ids[len(bos) :], *answer, *end]
        while len(buffer) >= body and len(prompts) < n:
            prompts.append(bos + buffer[:body])
            buffer = buffer[body:]
    if not prompts:
        raise TaskError("packed items", found=f"{len(buffer)} tokens", expected=f"at least {body}")
    return Dataset.from_dict({"input_ids": prompts})
