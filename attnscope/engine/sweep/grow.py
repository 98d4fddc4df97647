"""One forward whose batch grows: a variant joins at the first block that it edits, as a copy of the unedited rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall

from ...models._columns import some_tokens
from ..memory import explained
from .shared import Beginning, attend_after, whole
from .units import SITE, Variant, first_block

if TYPE_CHECKING:
    from ...models._base import Site
    from .alternatives import Values
    from .chunks import Chunk


@dataclass(frozen=True, eq=False)
class Start:
    """Where a forward begins.

    Attributes:
        position: of the first token that runs; those before it are read from `before`.
        block: the first block that runs.
        before: keys and values of the earlier tokens.
        stream: `[B, n, M]` input of that block, where it is not the first one.
    """

    position: int = 0
    block: int = 0
    before: Beginning | None = None
    stream: Tensor | None = None


class Growing:
    """Runs B prompts and V variants of each in one forward; row `v·B + b` is variant v of prompt b, 0 the unedited one.

    Args:
        scope: a transformers model.
        chunk: B prompts.
        variants: units that each variant edits, by the block of their first unit.
        values: what takes their place.
        start: where the forward begins.
        positions: `[n]` bool, where edits act; None means everywhere.
        tokens: vocabulary columns of the logits; None means all.
        implementation: kernel implementation.
        freeze_heads: after a variant's own units, every head gives what it gives without edits: the direct paths
            through MLPs alone (path patching).
        keep_streams: blocks whose unedited input is kept, in `streams`.
    """

    def __init__(
        self,
        scope: Any,
        chunk: Chunk,
        variants: Sequence[Variant],
        values: Values,
        start: Start,
        *,
        positions: Tensor | None = None,
        tokens: Sequence[int] | None = None,
        implementation: str = "auto",
        freeze_heads: bool = False,
        keep_streams: Sequence[int] = (),
    ) -> None:
        self.scope, self.chunk, self.values, self.start = scope, chunk, values, start
        self.positions, self.tokens, self.implementation = positions, tokens, implementation
        self.freeze_heads, self.keep_streams = freeze_heads, set(keep_streams)
        self.streams: dict[int, Tensor] = {}
        self.joining: dict[int, int] = defaultdict(int)
        self.edits: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
        first = [first_block(variant) for variant in variants]
        order = sorted(range(len(variants)), key=lambda i: (first[i], i))
        self.rows = [0] * len(variants)
        for row, index in enumerate(order, 1):
            self.rows[index] = row
            self.joining[first[index]] += 1
            for unit in variants[index]:
                self.edits[unit.layer, unit.module].append((row, unit.index))
        self.present = 1

    def logits(self, last: int) -> Tensor:
        """Return logits `[1 + V, B, last, C]` of the last positions; variant i stands at 1 + i.

        Raises:
            DeviceError: the device ran out of memory.
            TapError: something is attached already.
        """
        sites: list[Site] = ["block_input", *(SITE[level] for level in SITE if level != "residual")]
        wanted = [site for site in sites if site == "block_input" or any(SITE.get(k[1]) == site for k in self.edits)]  # type: ignore[call-overload]
        ids = self.chunk.ids[:, self.start.position :]
        options: dict[str, Any] = {"use_cache": False}
        if self.start.position:
            stop = self.chunk.ids.shape[1]
            options["position_ids"] = torch.arange(self.start.position, stop, device=ids.device)[None]
        if takes(self.scope.model, "logits_to_keep"):
            options["logits_to_keep"] = last
        self.present = 1
        attached = self.scope.attach(self._tap, self._stream, wanted, first_block=self.start.block)
        with (
            explained(self.scope, self.chunk.batch()),
            torch.no_grad(),
            some_tokens(self.scope.model, self.tokens) as few,
            attached,
        ):
            out: Tensor = self.scope.model(input_ids=ids, **options).logits[:, -last:]
        if self.tokens is not None and not few:
            out = out[..., list(self.tokens)]
        grown = out.view(self.present, self.chunk.size, last, -1)
        return grown[torch.tensor([0, *self.rows], device=out.device)]

    def _stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        if site == "block_input":
            if layer < self.start.block:
                return x
            if layer == self.start.block and self.start.stream is not None:
                x = self.start.stream
            if layer in self.keep_streams:
                self.streams[layer] = x[: self.chunk.size]
            joining = self.joining.get(layer, 0)
            if joining:
                x = torch.cat([x, x[: self.chunk.size].repeat(joining, 1, 1)])
                self.present += joining
        level = next(level for level, where in SITE.items() if where == site)
        edits = self.edits.get((layer, level))
        if not edits:
            return x
        rows, columns = (torch.tensor(part, device=x.device) for part in zip(*edits, strict=True))
        grown = x.view(self.present, self.chunk.size, *x.shape[1:]).clone()
        other = self.values.stream(layer, site, grown).to(grown.dtype).expand(grown.shape)
        if level == "neuron":
            grown[rows, :, :, columns] = self._blend(grown[rows, :, :, columns], other[rows, :, :, columns], 2)
        else:
            grown[rows] = self._blend(grown[rows], other[rows], 2)
        return grown.view(x.shape)

    def _tap(self, call: AttentionCall) -> Tensor:
        layer, b, before = call.layer, self.chunk.size, self.start.before
        joining = 0 if self.edits.get((layer, "residual")) else self.joining.get(layer, 0)
        kept = self.present - joining
        if self.freeze_heads:
            base = attend_after(_rows(call, 0, b), before, self.implementation)
            z = base.repeat(self.present, 1, 1, 1)
        else:
            old = attend_after(_rows(call, 0, kept * b), before, self.implementation)
            z = torch.cat([old, old[:b].repeat(joining, 1, 1, 1)]) if joining else old
        edits = self.edits.get((layer, "head"))
        if not edits:
            return z
        grown = z.view(self.present, b, *z.shape[1:])
        for rows, part in self._own_and_joining(edits, kept):
            index = torch.tensor([row for row, _ in part], device=z.device)
            heads = torch.tensor([head for _, head in part], device=z.device)
            chosen = [0] if rows is None else rows
            whole_call = self._whole_of(call, chosen)
            source = grown[torch.tensor(chosen, device=z.device)]
            other = self.values.heads(layer, whole_call, source).to(z.dtype).expand(source.shape)
            place = torch.zeros(len(part), dtype=torch.long) if rows is None else None
            at = place if place is not None else torch.tensor([chosen.index(row) for row, _ in part])
            taken = other[at.to(z.device), :, heads]
            grown[index, :, heads] = self._blend(grown[index, :, heads], taken, 2)
        return z

    def _own_and_joining(
        self, edits: list[tuple[int, int]], kept: int
    ) -> list[tuple[list[int] | None, list[tuple[int, int]]]]:
        """Split edits into those of rows that join now, which equal the unedited one, and those of rows that differ."""
        new = [edit for edit in edits if edit[0] >= kept]
        old = [edit for edit in edits if edit[0] < kept]
        parts: list[tuple[list[int] | None, list[tuple[int, int]]]] = []
        if new:
            parts.append((None, new))
        if old:
            parts.append((sorted({row for row, _ in old}), old))
        return parts

    def _whole_of(self, call: AttentionCall, rows: list[int]) -> Any:
        b = self.chunk.size

        def made() -> AttentionCall:
            index = torch.cat([torch.arange(row * b, row * b + b) for row in rows]).to(call.q.device)
            part = call.replace(q=call.q[index], k=call.k[index], v=call.v[index])
            return whole(part, self.start.before)

        return made

    def _blend(self, own: Tensor, other: Tensor, axis: int) -> Tensor:
        """Return the other values at edited positions; positions are the axis `axis`."""
        if self.positions is None:
            return other
        shape = [1] * own.dim()
        shape[axis] = len(self.positions)
        return torch.where(self.positions.view(shape), other, own)


def takes(model: Any, argument: str) -> bool:
    """Return whether a model's forward takes an argument."""
    import inspect

    return argument in inspect.signature(model.forward).parameters


def _rows(call: AttentionCall, start: int, stop: int) -> AttentionCall:
    if start == 0 and stop == call.q.shape[0]:
        return call
    return call.replace(q=call.q[start:stop], k=call.k[start:stop], v=call.v[start:stop])
