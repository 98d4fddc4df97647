"""Mass by distance: sums along the diagonals of a block of weights, one read of the block, no index tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import AttentionCall
from ._plan import Block, Part
from ._shapes import statistics_dtype


def diagonal_sums(weights: Tensor, rows: Tensor) -> Tensor:
    """Return Σ_i rows[i]·weights[i, i + t] for every diagonal t.

    Args:
        weights: `[N, bq, n]` contiguous.
        rows: `[N, 1, bq]` weight of each row.

    Returns:
        Tensor: `[N, bq - 1 + n]`; entry t + bq - 1 belongs to diagonal t in -(bq - 1)..n - 1.

    Example:
        >>> diagonal_sums(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.ones(1, 1, 2))
        tensor([[3., 5., 2.]])
    """
    count, bq, n = weights.shape
    edge = bq - 1
    if n < 2 * bq:
        return _padded(weights, rows)
    # Rows n + 1 elements apart turn diagonals into columns; only the two corner triangles need padding.
    band = weights.as_strided((count, bq, n - edge), (bq * n, n + 1, 1), weights.storage_offset())
    sums = weights.new_empty(count, edge + n)
    sums[:, :edge] = _padded(weights[..., :edge], rows)[:, :edge]
    sums[:, edge:n] = torch.bmm(rows, band).squeeze(1)
    sums[:, n:] = _padded(weights[..., n - edge :], rows)[:, edge:]
    return sums


class DistanceSums:
    """Accumulates the mass at every signed offset key − query, then bins it by distance."""

    def __init__(self, call: AttentionCall) -> None:
        b, h, tq, _ = call.q.shape
        self.zero = max(call.offset + tq - 1, 0)  # entry of offset 0
        length = self.zero + call.k.shape[2] - min(call.offset, 0)
        self.mass = torch.zeros(b, h, length, dtype=statistics_dtype(call), device=call.q.device)

    def fold(self, part: Part, block: Block, weights: Tensor, counts: Tensor) -> None:
        """Fold weights `[b, h, queries, keys]`; `counts` `[b, h, queries]` is 1 where a query counts, else 0."""
        b, h, rows, n = weights.shape
        sums = diagonal_sums(weights.view(b * h, rows, n), counts.reshape(b * h, 1, rows)).view(b, h, -1)
        first = self.zero + block.low - block.start - (rows - 1)
        self.mass[part.batch, part.heads, first : first + sums.shape[-1]] += sums

    def bins(self, edges: tuple[int, ...]) -> Tensor:
        """Return `[B, H, len(edges) - 1]`: bin e holds edges[e] <= |key − query| < edges[e + 1]."""
        before, after = self.mass[..., : self.zero + 1].flip(-1), self.mass[..., self.zero + 1 :]
        size = max(before.shape[-1], after.shape[-1] + 1, edges[-1])
        at = before.new_zeros(*before.shape[:-1], size)
        at[..., : before.shape[-1]] += before
        at[..., 1 : after.shape[-1] + 1] += after
        if edges[-1] - edges[0] == len(edges) - 1:
            return at[..., edges[0] : edges[-1]].contiguous()
        upto = torch.nn.functional.pad(at.double().cumsum(-1), (1, 0))[..., list(edges)]
        return upto.diff(dim=-1).to(at.dtype)


def _padded(weights: Tensor, rows: Tensor) -> Tensor:
    count, bq, n = weights.shape
    edge = bq - 1
    width = n + 2 * edge
    wide = torch.nn.functional.pad(weights, (edge, edge))
    skewed = wide.as_strided((count, bq, n + edge), (bq * width, width + 1, 1), wide.storage_offset())
    return torch.bmm(rows, skewed).squeeze(1)
