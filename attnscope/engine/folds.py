"""Folds whose numbers move to the host while the device goes on with the next layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..collectors._base import AttentionSeen, Collector, Fold, ResidualSeen, Seen, State
from ..core.errors import StatisticsError

ROOM = 1 << 18
"""Numbers in one piece of pinned memory; pinning is slow, so a forward's transfers share a few."""


class Pinned:
    """Host memory that a device can write while the host does something else, handed out piece by piece."""

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.float64)

    def take(self, numbers: int) -> Tensor:
        """Return `[numbers]` float64, uninitialised."""
        if self._free.numel() < numbers:
            self._free = torch.empty(max(ROOM, numbers), dtype=torch.float64, pin_memory=True)
        taken, self._free = self._free[:numbers], self._free[numbers:]
        return taken


class Transfer:
    """Tensors on their way to the host, as one copy."""

    def __init__(self, tensors: Sequence[Tensor], pinned: Pinned | None = None) -> None:
        self.shapes = [tensor.shape for tensor in tensors]
        joined = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])
        self.event = None
        if joined.is_cuda:
            self.host = (Pinned() if pinned is None else pinned).take(joined.numel())
            self.host.copy_(joined, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record(torch.cuda.current_stream(joined.device))
        else:
            self.host = joined

    def arrays(self) -> list[np.ndarray]:
        """Wait for the copy and return float64 arrays.

        Example:
            >>> Transfer([torch.ones(2), torch.tensor(3)]).arrays()
            [array([1., 1.]), array(3.)]
        """
        if self.event is not None:
            self.event.synchronize()
        parts = np.split(self.host.numpy(), np.cumsum([shape.numel() for shape in self.shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


class Folds:
    """Folds what a forward shows into the collectors' states; on a GPU the device never waits for it."""

    def __init__(self, collectors: Sequence[Collector], states: dict[str, State]) -> None:
        self.states = states
        self.attention = [c for c in collectors if c.sees == "attention"]
        self.residual = [c for c in collectors if c.sees == "residual"]
        self._pinned = Pinned()
        self._moving: list[tuple[str, Fold, Transfer]] = []

    def add(self, seen: Seen) -> None:
        """Reduce one layer or site on its device, and start moving the results."""
        assert isinstance(seen, AttentionSeen | ResidualSeen)
        for collector in self.attention if isinstance(seen, AttentionSeen) else self.residual:
            if isinstance(seen, ResidualSeen) and seen.site not in collector.sites:
                continue
            fold = collector.fold(self.states[collector.name], seen)
            tensors = next(fold, None)
            if tensors is None:
                continue  # it had nothing to add
            transfer = Transfer(tensors, self._pinned)
            if transfer.event is None:
                _finish(collector.name, fold, transfer)
            else:
                self._moving.append((collector.name, fold, transfer))

    def finish(self) -> None:
        """Wait for every number and add it up."""
        for name, fold, transfer in self._moving:
            _finish(name, fold, transfer)
        self._moving.clear()


def fold_now(collector: Collector, state: State, seen: Seen) -> None:
    """Fold one layer or site from start to end, waiting for its numbers.

    Raises:
        StatisticsError: the fold yields more than once.
    """
    folds = Folds([collector], {collector.name: state})
    folds.add(seen)
    folds.finish()


def _finish(name: str, fold: Fold, transfer: Transfer) -> None:
    try:
        fold.send(transfer.arrays())
    except StopIteration:
        return
    raise StatisticsError(
        f"fold of {name}", found="a second yield", expected="one, of everything that moves to the host"
    )
