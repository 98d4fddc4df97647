"""The tensors of a recording, filled batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.errors import DeviceError, TaskError
from ..edits._recording import NO_TOKEN
from ..edits._tokens import Positions, check_positions
from .batches import PromptSet, check_prompts, make_batch, plan

if TYPE_CHECKING:
    from ..models._base import Scope

LIMIT = 2 * 2**30
"""Bytes that a recording may take unless told otherwise."""


class RecordStore:
    """The tensors of a recording, filled batch by batch."""

    def __init__(
        self,
        prompts: PromptSet,
        scope: Scope,
        positions: Positions,
        units: int,
        kept: tuple[torch.dtype | None, torch.device | str | None, int],
    ) -> None:
        self.prompts, self.scope, self.units = prompts, scope, units
        self.lengths = check_prompts(prompts, scope.info.context_length)
        self.dtype, device, self.limit = kept
        self.device = torch.device(scope.device if device is None else device)
        self.slots = slots_of(positions, self.lengths).to(self.device)
        self.values: dict[int, Tensor] = {}
        self._batch: Batch | None = None

    def batches(self, batch_tokens: int, progress: Callable[[int, int], None] | None) -> Iterator[Batch]:
        """Yield the batches, and tell the prompts that are done."""
        done = 0
        for group in plan(self.lengths, batch_tokens):
            self._batch = make_batch(self.prompts, group, self.scope.device)
            yield self._batch
            done += len(group)
            if progress is not None:
                progress(done, len(self.lengths))

    def put(self, layer: int, x: Tensor, units: int) -> None:
        """Keep the chosen tokens of `[B, T, ...]`."""
        assert self._batch is not None
        if layer not in self.values:
            dtype = self.dtype or x.dtype
            size = self.slots.numel() * self.units * (x[0, 0].numel() // units) * dtype.itemsize
            check_bytes(size, self.limit, f"recording of {self.units} heads or layers at {self.slots.numel()} tokens")
            self.values[layer] = torch.zeros(*self.slots.shape, *x.shape[2:], dtype=dtype, device=self.device)
        rows = torch.tensor(self._batch.prompts, device=self.device)
        slots = self.slots[rows].to(x.device)
        held = slots != NO_TOKEN
        index = (self._batch.starts.to(x.device)[:, None] + slots).masked_fill(~held, 0)
        found = x.detach()[torch.arange(len(x), device=x.device)[:, None], index]
        found = found.masked_fill(~held.view(*held.shape, *[1] * (x.dim() - 2)), 0)
        self.values[layer][rows] = found.to(self.values[layer])


def slots_of(positions: Positions, lengths: Sequence[int]) -> Tensor:
    """Return the positions that each prompt has `[prompts, P]`, ascending, NO_TOKEN after the last one.

    Raises:
        TaskError: positions below 0, a prompt's own positions beyond its end, or none at all.

    Example:
        >>> slots_of((0, 2), [3, 4]).tolist()
        [[0, 2], [0, 2]]
    """
    check_positions("recording", positions)
    rows = []
    for prompt, length in enumerate(lengths):
        own = range(length) if positions is None else positions
        if isinstance(own, Mapping):
            own = own.get(prompt, ())
            beyond = [position for position in own if position >= length]
            if beyond:
                raise TaskError(f"recording of prompt {prompt}", found=beyond, expected=f"positions below {length}")
        rows.append(sorted({position for position in own if position < length}))
    most = max(map(len, rows))
    if most == 0:
        raise TaskError("recording", found="no positions in any prompt", expected="at least one")
    return torch.tensor([[*row, *[NO_TOKEN] * (most - len(row))] for row in rows])


def check_bytes(size: int, limit: int, what: str) -> None:
    """Refuse what would take too much memory.

    Raises:
        DeviceError: it says how much.

    Example:
        >>> check_bytes(10, 20, "recording")
    """
    if size > limit:
        raise DeviceError(
            what,
            found=f"{size:,} bytes",
            expected=f"at most {limit:,}",
            fix="Record fewer heads, layers, prompts or positions, in half precision, or raise the limit.",
        )
