"""Folds one layer late on a GPU: the device works on the next layer while the host adds up the last one's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ..collectors._base import AttentionSeen, Collector, ResidualSeen, Seen, State


class Folds:
    """Collects what a forward shows, and folds it into the collectors' states.

    On a CUDA device, what is added waits until the next layer's turn and is then folded on a stream of its own, so that
    a transfer waits for nothing but the fold. A waiting layer keeps its reductions and values; its queries, keys,
    outputs and residual stream are let go (see `Collector.reads_inputs`). On a CPU everything is folded at once.
    """

    def __init__(self, collectors: Sequence[Collector], states: dict[str, State], device: torch.device) -> None:
        self.states = states
        self.of = {sees: [c for c in collectors if c.sees == sees] for sees in ("attention", "residual")}
        self.stream = _stream(device) if device.type == "cuda" else None
        self._waiting: list[tuple[Seen, list[Collector]]] = []

    def add(self, seen: AttentionSeen | ResidualSeen) -> None:
        """Take one layer or site."""
        collectors = self.of["attention" if isinstance(seen, AttentionSeen) else "residual"]
        late = [] if self.stream is None else [c for c in collectors if not c.reads_inputs]
        self._fold(seen, [c for c in collectors if c not in late])
        if late:
            self._waiting.append((_without_inputs(seen), late))

    def catch_up(self) -> None:
        """Fold what waits."""
        if not self._waiting:
            return
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            for seen, collectors in self._waiting:
                self._fold(seen, collectors)
        self.stream.synchronize()  # what waited is freed now, for the other stream to use
        self._waiting.clear()

    def _fold(self, seen: Seen, collectors: Sequence[Collector]) -> None:
        for collector in collectors:
            collector.fold(self.states[collector.name], seen)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of a device that folds: memory is kept by stream, and one keeps the least."""
    return torch.cuda.Stream(device)


def _without_inputs(seen: Seen) -> Seen:
    if isinstance(seen, AttentionSeen):
        call = seen.call.replace(q=_hollow(seen.call.q), k=_hollow(seen.call.k))
        return replace(seen, call=call, result=replace(seen.result, output=None))
    late = replace(seen, stream=_hollow(seen.stream))
    vars(late)["statistics"] = seen.statistics  # measured now, while the stream is there
    return late


def _hollow(x: Tensor) -> Tensor:
    """Return NaN in the shape, dtype and device of a tensor, in the memory of one number."""
    return x.new_full((), torch.nan).expand(x.shape)
