"""Batch: prompts on their way through a model."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .errors import TaskError

if TYPE_CHECKING:
    import torch

DISTANCE_GRID: tuple[int, ...] = (
    *range(64),
    *(low + step * low // 8 for low in (2**power for power in range(6, 10)) for step in range(8)),
    *(edge for low in (2**power for power in range(10, 21)) for edge in (low, low + low // 2)),
    2**21,
)
"""Edges of the distance bins, tokens: one bin a distance below 64, eight an octave below 1024, then two, to 2,097,152.

Wide bins cost a kernel little: it sums whole tiles that lie in one of them."""


@dataclass(frozen=True)
class Batch:
    """B prompts of at most T tokens.

    Attributes:
        input_ids: `[B, T]` token ids.
        valid: `[B, T]` bool, False on padding (left or right).
        prompts: the B indices of these prompts in their prompt set, which is also their row in per-prompt statistics.
        n_prompts: size of the whole prompt set.
        columns: the task's other columns, one list entry a prompt; positions in them count real tokens only.
        farthest: distances up to this one are binned; None bins all.
    """

    input_ids: torch.Tensor
    valid: torch.Tensor
    prompts: tuple[int, ...]
    n_prompts: int
    columns: dict[str, list[Any]] = field(default_factory=dict)
    farthest: int | None = None

    @property
    def padded(self) -> bool:
        """Whether any position is padding."""
        return not bool(self.valid.all())

    @cached_property
    def starts(self) -> torch.Tensor:
        """`[B]` index of each prompt's first real token."""
        return self.valid.long().argmax(1)

    @cached_property
    def lengths(self) -> torch.Tensor:
        """`[B]` real tokens of each prompt."""
        return self.valid.sum(1)

    @cached_property
    def first_token(self) -> torch.Tensor:
        """`[B, T]` for every query, the key index of its prompt's first real token."""
        return self.starts[:, None].expand_as(self.input_ids).contiguous()

    @cached_property
    def distance_edges(self) -> tuple[int, ...]:
        """The edges of DISTANCE_GRID up to the first that no distance of this batch reaches, or up to `farthest`.

        Bins are the same at every T; only how many there are differs.

        Raises:
            TaskError: more tokens than the grid has distances for.
        """
        tokens = self.input_ids.shape[1]
        if tokens > DISTANCE_GRID[-1]:
            raise TaskError(
                "distances within a prompt",
                found=f"{tokens} tokens",
                expected=f"at most {DISTANCE_GRID[-1]}",
                fix="Shorten the prompts, or leave out the collectors that bin distances.",
            )
        reach = tokens if self.farthest is None else min(tokens, self.farthest)
        return DISTANCE_GRID[: bisect_left(DISTANCE_GRID, reach) + 1]

    def column(self, name: str, asked_by: str) -> list[Any]:
        """Return a task's column.

        Raises:
            TaskError: the prompt set has no such column.
        """
        if name not in self.columns:
            raise TaskError(
                f"prompt set for {asked_by}",
                found=f"columns {sorted(self.columns) or 'none'} beside input_ids",
                expected=f"a column {name!r}",
                fix="Use a task that makes it, for example 'repeats' for induction or 'needle' for retrieval.",
            )
        return self.columns[name]
