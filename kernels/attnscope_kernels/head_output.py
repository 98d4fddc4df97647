"""HeadOutput: what becomes of the query heads' outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class HeadOutput:
    """What becomes of each query head's output: z'_h = scale_h · kept_h · z_h, plus a patch where the head has one.

    Attributes:
        scale: `[H]` float; 0 stops a head, and an implementation may then leave its attention uncomputed.
        patched: the P query heads that get a patch.
        patches: `[B or 1, P, Tq or 1, Dv]`, in the order of `patched`: other activations, or a mean.
        kept: `[B or 1, P, Tq or 1]` a further factor on the patched heads' outputs, by query; None means 1.

    Example:
        >>> HeadOutput(torch.tensor([1.0, 0.0])).then(HeadOutput(torch.tensor([0.5, 1.0]))).scale
        tensor([0.5000, 0.0000])
    """

    scale: Tensor
    patched: tuple[int, ...] = ()
    patches: Tensor | None = None
    kept: Tensor | None = None

    def then(self, other: HeadOutput) -> HeadOutput:
        """Return both edits as one, `other` acting on what this one gives."""
        heads = tuple(sorted({*self.patched, *other.patched}))
        if not heads:
            return HeadOutput(self.scale * other.scale)
        columns, factors = [], []
        for head in heads:
            (mine, kept), (theirs, after) = self._of(head), other._of(head)
            column = None if mine is None else mine * other.scale[head].to(mine)
            if column is not None and after is not None:
                column = column * after[..., None].to(column)
            columns.append(theirs if column is None else column if theirs is None else column + theirs)
            factors.append(kept if after is None else after if kept is None else kept * after)
        stacked = torch.stack(torch.broadcast_tensors(*columns), 1)
        return HeadOutput(self.scale * other.scale, heads, stacked, _stack_factors(factors))

    def _of(self, head: int) -> tuple[Tensor | None, Tensor | None]:
        """Return one head's patch `[B or 1, Tq or 1, Dv]` and factor `[B or 1, Tq or 1]`."""
        if self.patches is None or head not in self.patched:
            return None, None
        place = self.patched.index(head)
        return self.patches[:, place], None if self.kept is None else self.kept[:, place]


def _stack_factors(factors: list[Tensor | None]) -> Tensor | None:
    some = [factor for factor in factors if factor is not None]
    if not some:
        return None
    whole = [some[0].new_ones(1, 1) if factor is None else factor for factor in factors]
    return torch.stack(torch.broadcast_tensors(*whole), 1)
