"""Recording: activations of one run, to be put into another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..core.errors import TaskError, UnknownHeadError
from ..core.ids import HeadId
from ._plain import digest
from ._tokens import rows_of

NO_TOKEN = 2**62
"""Stands in `Recording.positions` where a prompt has fewer recorded tokens than others."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Activations of a prompt set at some tokens; `engine.recordings` makes them.

    Attributes:
        what: `z`, `q`, `k` or `v` of heads, or a site of the residual stream.
        values: layer → `[prompts, P, heads of this layer, Dv]`, or `[prompts, P, M]` of a site.
        positions: `[prompts, P]` int64 positions of these tokens, counted from each prompt's first one, ascending;
            NO_TOKEN after the last one.
        heads: the recorded query heads, in order; empty for a site.

    Example:
        >>> made = Recording("z", {0: torch.zeros(1, 2, 1, 4)}, torch.tensor([[0, 1]]), (HeadId(0, 3),))
        >>> made.prompts
        1
    """

    what: str
    values: Mapping[int, Tensor]
    positions: Tensor
    heads: tuple[HeadId, ...] = ()

    def __repr__(self) -> str:
        return f"Recording({self.what!r}, layers {sorted(self.values)}, {self.prompts} prompts, {self._digest})"

    @cached_property
    def _digest(self) -> str:
        return "-".join(digest(self.values[layer])[:16] for layer in sorted(self.values))

    @property
    def prompts(self) -> int:
        """How many prompts were recorded."""
        return len(self.positions)

    def check(self, what: str, layers: Sequence[int], heads: Sequence[HeadId] = (), kind: str | None = None) -> None:
        """Refuse what was not recorded.

        Raises:
            TaskError: another kind of activation, or a layer that was not recorded.
            UnknownHeadError: a head that was not recorded.
        """
        if kind is not None and self.what != kind:
            raise TaskError(what, found=f"a recording of {self.what}", expected=f"one of {kind}")
        lacking = sorted(set(layers) - set(self.values))
        if lacking:
            raise TaskError(what, found=f"no recording of layers {lacking}", expected=f"some of {sorted(self.values)}")
        absent = [head for head in heads if head not in self.heads]
        if absent:
            raise UnknownHeadError(what, found=f"no recording of {absent}", expected=f"some of {list(self.heads)}")

    def rows(self, what: str, prompts: tuple[int, ...] | None, rows: int) -> tuple[int, ...]:
        """Return the recorded prompt for each row; one recorded prompt alone serves all rows.

        Raises:
            TaskError: the prompts of a forward are not known, or one was not recorded.
        """
        if self.prompts == 1:
            return (0,) * rows
        own = rows_of(what, prompts, rows)
        absent = sorted({prompt for prompt in own if not 0 <= prompt < self.prompts})
        if absent:
            raise TaskError(what, found=f"prompts {absent}", expected=f"recorded prompts, 0..{self.prompts - 1}")
        return own

    def at(self, layer: int, prompts: Sequence[int], positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what was recorded at positions of prompts, and where something was.

        Args:
            layer: a recorded one.
            prompts: B recorded prompts.
            positions: `[B, T]`, -1 on padding.

        Returns:
            tuple[Tensor, Tensor]: values `[B, T, ...]` and `[B, T]` bool, False where nothing was recorded.

        Example:
            >>> made = Recording("mlp_output", {0: torch.tensor([[[5.0], [6.0]]])}, torch.tensor([[0, 4]]))
            >>> [x.tolist() for x in made.at(0, [0], torch.tensor([[4, 5]]))]
            [[[[6.0], [6.0]]], [[True, False]]]
        """
        values = self.values[layer]
        rows = torch.tensor(list(prompts), device=self.positions.device)
        wanted = positions.to(self.positions.device).contiguous()
        slots = self.positions[rows].contiguous()
        index = torch.searchsorted(slots, wanted).clamp(max=slots.shape[1] - 1)
        known = slots.gather(1, index) == wanted
        found = values[rows.to(values.device)[:, None], index.to(values.device)]
        return found.to(positions.device), known.to(positions.device)
