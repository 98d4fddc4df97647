"""What becomes of A·V before it leaves the kernels: padding and the edits of `head_output`."""

from __future__ import annotations

from torch import Tensor

from ..contract import AttentionCall


def finish(call: AttentionCall, z: Tensor, *, padding: bool = True, scaled: bool = False) -> Tensor:
    """Return z `[B, H, Tq, Dv]` with 0 on padded queries, scaled and patched, in place where it needs no gradient.

    Args:
        call: what z is of.
        z: A·V.
        padding: whether padded queries may hold something else than 0.
        scaled: whether z is scaled already.
    """
    output, padded = call.head_output, call.padded_queries if padding else None
    if padded is not None and bool(padded.any()):
        z = (z.masked_fill if z.requires_grad else z.masked_fill_)(padded[:, None, :, None], 0)
    if output is None:
        return z
    if not scaled:
        scale = output.scale.to(z)
        z = z * scale[:, None, None] if z.requires_grad else z.mul_(scale[:, None, None])
    if output.patches is not None:
        z = z.clone() if z.requires_grad else z
        patched = list(output.patched)
        if output.kept is not None:
            z[:, patched] *= output.kept[..., None].to(z)
        z[:, patched] += output.patches.to(z)
    return z
