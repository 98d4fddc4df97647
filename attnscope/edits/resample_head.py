"""Resample ablation: a head says what it said on another prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from ..core.errors import TaskError
from .patch_head import PatchHead

if TYPE_CHECKING:
    from ..core.batch import Batch


@dataclass(frozen=True)
class ResampleHead(PatchHead):
    """Put the outputs z of some query heads on other prompts, drawn at random, in place of their own.

    Unlike a zero or a mean, what it puts in place is something that the head does say. Positions stay: each gets what
    stood at the same position of the drawn prompt, which is one of those that the source holds there. The draw depends
    on the prompt, its length and the seed alone, so that batching changes nothing.

    Attributes:
        heads: query heads.
        source: z of at least these heads.
        positions: in every prompt, or prompt → positions; None means all that the source holds.
        seed: of the draws.
        same_set: whether the source's prompts are those that run, so that a prompt never draws itself.

    Raises:
        UnknownHeadError: no head is named, or the source lacks one.
        TaskError: the source is not of z; in use, the prompts are not known, or no other one is as long.

    Example:
        >>> import torch
        >>> from attnscope.core.ids import HeadId
        >>> from attnscope.edits._recording import Recording
        >>> source = Recording("z", {0: torch.zeros(2, 1, 1, 4)}, torch.tensor([[0], [0]]), (HeadId(0, 3),))
        >>> ResampleHead((HeadId(0, 3),), source, seed=1).seed
        1
    """

    name: ClassVar[str] = "resample_head"
    seed: int = 0
    same_set: bool = True

    def _drawn(self, batch: Batch) -> tuple[int, ...]:
        return tuple(map(self._draw, batch.prompts, batch.lengths.tolist()))

    def _draw(self, prompt: int, length: int) -> int:
        held = (self.source.positions < length).sum(1) == length
        if self.positions is not None:
            own = self.positions.get(prompt, ()) if isinstance(self.positions, Mapping) else self.positions
            needed = torch.tensor([position for position in own if position < length], dtype=torch.long)
            held = torch.stack([torch.isin(needed.to(row.device), row).all() for row in self.source.positions])
        others = [i for i, holds in enumerate(held.tolist()) if holds and not (self.same_set and i == prompt)]
        if not others:
            raise TaskError(
                f"{self._what} for prompt {prompt}",
                found=f"no other recorded prompt with these positions of its {length}",
                expected="at least one",
                fix="Record more prompts, or prompts of one length.",
            )
        return others[int(np.random.default_rng([self.seed, prompt]).integers(len(others)))]
