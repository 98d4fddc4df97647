"""From a prompt set to batches of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from ..core.batch import Batch
from ..core.errors import TaskError


class PromptSet(Protocol):
    """What `collect` needs of a `datasets.Dataset`: rows by index, columns by name, a length."""

    column_names: list[str]

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any) -> Any: ...


def check_prompts(prompts: PromptSet, context_length: int | None) -> list[int]:
    """Return the prompts' lengths in tokens.

    Raises:
        TaskError: no prompts, no `input_ids`, a prompt without tokens, or one longer than the model's context.
    """
    if "input_ids" not in prompts.column_names:
        raise TaskError("prompt set", found=f"columns {prompts.column_names}", expected="a column 'input_ids'")
    if len(prompts) == 0:
        raise TaskError("prompt set", found="no prompts", expected="at least one")
    lengths = [len(ids) for ids in prompts["input_ids"]]
    if min(lengths) == 0:
        raise TaskError(f"prompt {lengths.index(0)}", found="no tokens", expected="at least one")
    if context_length is not None and max(lengths) > context_length:
        raise TaskError(
            f"prompt {lengths.index(max(lengths))}",
            found=f"{max(lengths)} tokens",
            expected=f"at most the model's context of {context_length}",
            fix="Shorten it, or build the prompt set with a smaller length.",
        )
    return lengths


def plan(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group prompt indices into batches of at most `batch_tokens` padded tokens (one prompt at the least).

    Prompts of equal length come together, so that a packed set is never padded.

    Example:
        >>> plan([4, 4, 9, 4], batch_tokens=8)
        [[0, 1], [3], [2]]
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        fits = batches and lengths[index] * (len(batches[-1]) + 1) <= batch_tokens
        if fits:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def make_batch(prompts: PromptSet, indices: Sequence[int], device: torch.device | str) -> Batch:
    """Stack prompts, padded on the right."""
    rows: Mapping[str, list[Any]] = prompts[list(indices)]
    ids = [torch.as_tensor(row, dtype=torch.long) for row in rows["input_ids"]]
    longest = max(len(row) for row in ids)
    input_ids, valid = (
        torch.zeros(len(ids), longest, dtype=torch.long),
        torch.zeros(len(ids), longest, dtype=torch.bool),
    )
    for i, row in enumerate(ids):
        input_ids[i, : len(row)], valid[i, : len(row)] = row, True
    columns = {name: list(values) for name, values in rows.items() if name != "input_ids"}
    return Batch(input_ids.to(device), valid.to(device), tuple(indices), len(prompts), columns)


def batches(prompts: PromptSet, groups: Sequence[Sequence[int]], device: torch.device | str) -> Iterator[Batch]:
    """Yield the planned batches."""
    for group in groups:
        yield make_batch(prompts, group, device)


def fingerprint(prompts: PromptSet) -> str:
    """Return the SHA-256 of all token ids, in order.

    Example:
        >>> import datasets
        >>> len(fingerprint(datasets.Dataset.from_dict({"input_ids": [[1, 2]]})))
        64
    """
    digest = hashlib.sha256()
    for ids in prompts["input_ids"]:
        digest.update(torch.as_tensor(ids, dtype=torch.long).numpy().tobytes() + b"|")
    return digest.hexdigest()
