"""Means of activations over a prompt set: of a token, and of the tokens at one position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.batch import Batch
from ..core.ids import HeadId
from ..edits._recording import Recording
from ._record_store import check_bytes


class Means:
    """Sums in float64 over the tokens of a prompt set, and over the prompts at each position."""

    def __init__(self, skip: int, longest: int, limit: int) -> None:
        self.skip, self.longest, self.limit = skip, longest, limit
        self.sums: dict[tuple[str, int], Tensor] = {}
        self.at: dict[tuple[str, int], Tensor] = {}
        self.tokens: dict[tuple[str, int], int] = {}
        self.counts: dict[tuple[str, int], Tensor] = {}

    def add(self, what: str, layer: int, x: Tensor, batch: Batch) -> None:
        """Add `[B, T, ...]`."""
        key, valid = (what, layer), batch.valid.to(x.device)
        position = (valid.long().cumsum(1) - 1)[valid]
        rows = x.detach()[valid].double()
        counted = rows[position >= self.skip]
        self.sums[key] = self.sums.get(key, 0) + counted.sum(0)
        self.tokens[key] = self.tokens.get(key, 0) + len(counted)
        if not self.longest:
            return
        if key not in self.at:
            shape = (self.longest, *rows.shape[1:])
            size = sum(each.numel() for each in self.at.values()) + rows[0].numel() * self.longest
            check_bytes(8 * size, self.limit, f"means by position up to {what} of layer {layer}")
            self.at[key] = rows.new_zeros(shape)
            self.counts[key] = rows.new_zeros(self.longest)
        self.at[key].index_add_(0, position, rows)
        self.counts[key].index_add_(0, position, torch.ones_like(position, dtype=rows.dtype))

    def over_tokens(self, what: str, device: torch.device) -> dict[int, Tensor]:
        """Return layer → mean over tokens, float32."""
        return {
            layer: (total / self.tokens[name, layer]).float().to(device)
            for (name, layer), total in sorted(self.sums.items())
            if name == what
        }

    def recordings(self, heads: Sequence[HeadId], device: torch.device) -> dict[str, Recording]:
        """Return what → means by position, as of one prompt."""
        made: dict[str, Recording] = {}
        for what in dict.fromkeys(name for name, _ in self.at):
            values = {
                layer: (total / self.counts[name, layer].view(-1, *[1] * (total.dim() - 1))).float()[None].to(device)
                for (name, layer), total in sorted(self.at.items())
                if name == what
            }
            slots = torch.arange(self.longest, device=device)[None]
            made[what] = Recording(what, values, slots, tuple(heads) if what == "z" else ())
        return made
