"""Plain four-bit weights and activations, to see what outlier dimensions do to quantisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.errors import TaskError, UnsupportedModelError
from ..models._parts import is_projection
from .norms import in_out, is_plain, parts_of

if TYPE_CHECKING:
    from ..models._base import Scope

LARGEST = 7
"""Four bits with a sign and no offset: -7..7."""


def round_to_nearest(x: Tensor, group: int = 128) -> Tensor:
    """Return x rounded to 15 levels, -7..7 times a scale for each group along the last dimension.

    Args:
        x: `[..., M]`.
        group: numbers that share a scale, which is their largest |x| / 7; the last group may be smaller.

    Returns:
        Same shape and dtype; off by half a scale at most.

    Raises:
        TaskError: a group of no numbers.

    Example:
        >>> round_to_nearest(torch.tensor([7.0, 1.4, -2.6]))
        tensor([ 7.,  1., -3.])
    """
    if group < 1:
        raise TaskError("quantisation group", found=group, expected="at least 1")
    width = x.shape[-1]
    padded = nn.functional.pad(x.float(), (0, -width % group)).unflatten(-1, (-1, group))
    scale = padded.abs().amax(-1, keepdim=True) / LARGEST
    steps = (padded / scale.where(scale > 0, 1.0)).round().clamp(-LARGEST, LARGEST)
    return (steps * scale).flatten(-2)[..., :width].to(x.dtype)


@contextmanager
def w4a4(scope: Scope, apart: Sequence[int] = (), group: int = 128) -> Iterator[None]:
    """Round weights and activations of every projection inside the blocks to four bits.

    Round to nearest, symmetric, in groups along the input; activations for each token apart. The vocabulary
    projection, norms and experts that are not plain projections stay as they are. One quantised weight exists at a
    time; everything is restored on exit, also after an exception.

    Args:
        scope: a loaded model.
        apart: residual dimensions that projections which read a norm multiply in full precision.
        group: numbers that share a scale.

    Raises:
        TaskError: a dimension that the model lacks, or a group of no numbers.
        UnsupportedModelError: no projections, or weights that are quantised already or offloaded.

    Example:
        >>> import attnscope
        >>> from attnscope.engine.loss import next_token_loss
        >>> scope = attnscope.load(device="cpu")
        >>> with w4a4(scope, apart=(43,)):  # doctest: +SKIP
        ...     next_token_loss(scope, prompts)
    """
    outside = [dimension for dimension in apart if not 0 <= dimension < scope.info.d_model]
    if outside:
        raise TaskError("dimensions apart", found=outside, expected=f"0..{scope.info.d_model - 1}")
    if group < 1:
        raise TaskError("quantisation group", found=group, expected="at least 1")
    parts = parts_of(scope)
    readers = {one for block in parts.blocks for found in (block.readers or {}).values() for one in found}
    blocks: Sequence[nn.Module] = scope.blocks  # type: ignore[attr-defined]
    modules = list(dict.fromkeys(m for block in blocks for m in block.modules() if is_projection(m)))
    if not modules or not all(map(is_plain, modules)):
        raise UnsupportedModelError(
            f"quantisation of {scope.info.model_id}",
            found="weights that are quantised already or offloaded" if modules else "no projection in any block",
            expected="projections with floating-point weights in memory",
        )
    with ExitStack() as stack:
        for module in modules:
            hook = _rounded(tuple(apart) if module in readers else (), group)
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def _rounded(apart: tuple[int, ...], group: int) -> Any:
    @torch.no_grad()
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x, weight = args[0], in_out(module)
        chosen = list(apart)
        rest, low = x, weight
        if chosen:
            rest, low = x.clone(), weight.clone()
            rest[..., chosen], low[:, chosen] = 0, 0
        result = round_to_nearest(rest, group) @ round_to_nearest(low, group).T
        if chosen:
            result = result + x[..., chosen] @ weight[:, chosen].T
        bias = getattr(module, "bias", None)
        return (result if bias is None else result + bias).to(output.dtype)

    return hook
