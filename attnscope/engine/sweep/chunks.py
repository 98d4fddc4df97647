"""Prompts of one length together, so that nothing is padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.errors import TaskError
from ..batches import PromptSet, check_prompts
from .metrics import Metric

Positions = Literal["all", "answer", "question", "each"] | Sequence[int]
"""Which tokens an edit acts on: all; the last one of the prompt and the answer's (`answer`); those from the column
`question_position` on (`question`); each token of the prompt by itself (`each`); or these positions of every prompt."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """B prompts of T tokens whose answers have A tokens.

    Attributes:
        prompts: their rows in the prompt set.
        n_prompts: size of the prompt set.
        ids: `[B, T]` what the model reads.
        targets: `[B, A]` what the last A positions are to predict.
        first: the first position that edits may act on.
        positions: the positions that edits act on, or None for all from `first` on.
        rows: the prompts' columns.
    """

    prompts: tuple[int, ...]
    n_prompts: int
    ids: Tensor
    targets: Tensor
    first: int
    positions: tuple[int, ...] | None
    rows: tuple[Mapping[str, Any], ...] = field(repr=False)

    @property
    def size(self) -> int:
        """B."""
        return len(self.prompts)

    def batch(self, ids: Tensor | None = None) -> Batch:
        """Return the prompts, or others of their shape, as a batch."""
        chosen = self.ids if ids is None else ids
        columns = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        return Batch(chosen, torch.ones_like(chosen, dtype=torch.bool), self.prompts, self.n_prompts, columns)

    def where(self, start: int, device: torch.device) -> Tensor | None:
        """Return `[T - start]` bool, True at edited positions; None where all are."""
        if self.positions is None and start >= self.first:
            return None
        mask = torch.zeros(self.ids.shape[1] - start, dtype=torch.bool, device=device)
        if self.positions is None:
            mask[self.first - start :] = True
        else:
            mask[[position - start for position in self.positions]] = True
        return mask


def chunks(
    prompts: PromptSet,
    metrics: Sequence[Metric],
    positions: Positions,
    base: str,
    *,
    context_length: int | None,
    most: int,
    device: torch.device,
    least: int = 1,
) -> list[Chunk]:
    """Return prompts in chunks of equal length, of at most `most` prompts each, the shortest first.

    With `least`, no chunk has fewer prompts where there are as many of its length; some may then have more than `most`.

    Raises:
        TaskError: a column is missing, prompts are empty or too long, or a position lies outside a prompt.
    """
    rows = _rows(prompts, metrics, positions, base, context_length)
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    read: list[tuple[list[int], list[int]]] = []
    for index, row in enumerate(rows):
        ids = list(row[base])
        longest = max(metrics, key=lambda metric, row=row: len(metric.targets(row)))  # type: ignore[misc]
        forced, targets = longest.forced(row, ids), longest.targets(row)
        read.append((forced, targets))
        groups[(len(forced), len(targets), *_where(positions, row, len(ids), index))].append(index)
    found = []
    for key in sorted(groups, key=str):
        first, chosen = key[2], key[3]
        group = groups[key]
        count = max(1, min(-(-len(group) // most), len(group) // least))
        for part in (group[i * len(group) // count : (i + 1) * len(group) // count] for i in range(count)):
            found.append(
                Chunk(
                    tuple(part),
                    len(rows),
                    torch.tensor([read[i][0] for i in part], device=device),
                    torch.tensor([read[i][1] for i in part], device=device),
                    first,
                    chosen,
                    tuple(rows[i] for i in part),
                )
            )
    return sorted(found, key=lambda chunk: (chunk.ids.shape[1], chunk.prompts))


def _rows(
    prompts: PromptSet, metrics: Sequence[Metric], positions: Positions, base: str, context_length: int | None
) -> list[Mapping[str, Any]]:
    check_prompts(prompts, context_length)
    needed = {base, *(name for metric in metrics for name in metric.needs)}
    needed |= {"question_position"} if positions == "question" else set()
    missing = sorted(needed - set(prompts.column_names))
    if missing:
        names = ", ".join(metric.name for metric in metrics)
        raise TaskError(
            f"prompt set for {names}",
            found=f"columns {sorted(prompts.column_names)}",
            expected=f"also {', '.join(missing)}",
            fix="Use a task that makes pairs, for example 'ioi' or 'recall_pairs'.",
        )
    rows: list[Mapping[str, Any]] = [prompts[i] for i in range(len(prompts))]
    for index, row in enumerate(rows):
        if "answer_ids" in needed and not row["answer_ids"]:
            raise TaskError(f"prompt {index}", found="an empty answer", expected="at least one answer token")
    return rows


def _where(positions: Positions, row: Mapping[str, Any], length: int, index: int) -> tuple[int, tuple[int, ...] | None]:
    """Return (first edited position, edited positions or None for all from there on)."""
    if positions in ("all", "each"):
        return 0, None
    if positions == "answer":
        return length - 1, None
    if positions == "question":
        return int(row["question_position"]), None
    if isinstance(positions, str):
        expected = "'all', 'answer', 'question', 'each' or numbers"
        raise TaskError("positions of a sweep", found=repr(positions), expected=expected)
    chosen = tuple(sorted({position + length if position < 0 else position for position in positions}))
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < length:
        raise TaskError(
            f"positions of a sweep in prompt {index}", found=list(positions), expected=f"some below {length} tokens"
        )
    return chosen[0], chosen
