"""Value drain through W_O: how little the first token writes when a head attends to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.names import Variable
from ._base import AttentionSeen, HeadScore
from .value_norm import first_over_rest

CHUNK_BYTES = 1 << 25
"""Size of the written values of one chunk of tokens."""


@dataclass(frozen=True)
class ValueDrain(HeadScore):
    """‖v W_O‖ of the first token over the mean of the others, per query head, range 0..∞ (2410.13835).

    What a head would write into the residual stream if all its attention were on that token; far below 1 where the
    sink's value is drained.
    """

    name: ClassVar[str] = "value_drain"
    variables: ClassVar[tuple[Variable, ...]] = (
        Variable("value_drain", ("prompt", "layer", "head"), "1", "written norm, first token / others", "2410.13835"),
    )

    def measure(self, seen: AttentionSeen) -> tuple[Tensor, Tensor]:
        """Compare the first token with the rest."""
        norms = written_norms(seen.call.v, cholesky_factors(seen.output_projection()))
        ratio = first_over_rest(norms, seen.batch)
        measured = ~ratio.isnan()
        return ratio.where(measured, 0.0), measured


def cholesky_factors(projection: Tensor) -> Tensor:
    """Return C `[H, Dv, Dv]` with ‖v C‖ = ‖v W_O‖ for every v, so that nothing of size `[T, M]` a head is made.

    Args:
        projection: W_O `[H, Dv, M]`.

    Returns:
        The factors of W_O·W_Oᵀ in float64; 0 for a head whose W_O is 0.
    """
    h, d, _ = projection.shape
    gram = torch.zeros(h, d, d, dtype=torch.float64, device=projection.device)
    for part in projection.split(max(1, CHUNK_BYTES // (8 * h * d)), dim=2):
        wide = part.double()
        gram.baddbmm_(wide, wide.mT)
    # W_O of lower rank than Dv has no factor; 1e-12 of its mean size makes one and changes no norm that is measurable.
    gram.diagonal(dim1=1, dim2=2).add_(1e-12 * gram.diagonal(dim1=1, dim2=2).mean(1, keepdim=True))
    factors, failed = torch.linalg.cholesky_ex(gram)
    return factors.where((failed == 0)[:, None, None], 0.0)


def written_norms(v: Tensor, factors: Tensor) -> Tensor:
    """Return ‖v C‖ `[B, H, T]` in float32 (float64 for float64 values), a chunk of tokens at a time.

    On a GPU the product has v's own dtype, as the model's output projection has; sums and norms are in float32.

    Args:
        v: `[B, G, T, Dv]`.
        factors: `[H, Dv, Dv]`.
    """
    b, g, t, d = v.shape
    h = factors.shape[0]
    dtype = torch.float64 if v.dtype == torch.float64 else torch.float32
    product = v.dtype if v.is_cuda else dtype
    joined = factors.unflatten(0, (g, h // g)).transpose(1, 2).flatten(2).to(product)  # [G, Dv, n·Dv]
    norms = torch.empty(b, h, t, dtype=dtype, device=v.device)
    step = max(1, CHUNK_BYTES // (product.itemsize * max(1, b * h * d)))
    for first in range(0, t, step):
        part = slice(first, first + step)
        written = (v[:, :, part].to(product) @ joined).unflatten(3, (h // g, d))
        norm = torch.linalg.vector_norm(written, dim=-1, dtype=dtype)  # [B, G, step, n]
        norms[:, :, part] = norm.transpose(2, 3).flatten(1, 2)
    return norms
