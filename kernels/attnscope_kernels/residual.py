"""Statistics of the residual stream in one read: each token's norm and largest dimension, every dimension's size."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from .errors import ContractError, ImplementationUnavailableError

IMPLEMENTATIONS = ("torch", "triton")
LOW_PRECISION = (torch.bfloat16, torch.float16, torch.float32)
CHUNK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 25}
"""Size of the torch implementation's copy of one chunk of tokens: it stays in a CPU's cache, or fills a GPU."""


@dataclass(frozen=True, eq=False)
class ResidualStatistics:
    """What one read of a stream x `[B, T, M]` gives; float32, and float64 for a float64 stream.

    Attributes:
        norm: ‖x‖₂ of each token, `[B, T]`; NaN where the token is not valid.
        max_abs: largest |x_d| of each token, `[B, T]`; NaN likewise, and where x itself holds a NaN.
        argmax: the dimension of that largest |x_d| (the first such), `[B, T]` int64; -1 where the token is not valid.
        dimension_sum_abs: Σ |x_d| over the valid tokens but the one left out, `[B, M]`, always float64.
        tokens: how many tokens that sum holds, `[B]` int64.
        implementation: what computed it.
    """

    norm: Tensor
    max_abs: Tensor
    argmax: Tensor
    dimension_sum_abs: Tensor
    tokens: Tensor
    implementation: str


def residual_statistics(
    x: Tensor, valid: Tensor | None = None, *, skip: Tensor | None = None, implementation: str = "auto"
) -> ResidualStatistics:
    """Return the statistics of a residual stream; the same numbers on every call (no atomic additions).

    Args:
        x: `[B, T, M]`, bfloat16, float16, float32 or float64.
        valid: `[B, T]` bool, False on padding; None means all valid.
        skip: `[B]` int64, the position that `dimension_sum_abs` leaves out of each prompt, for example its first
            token; -1 leaves nothing out of that prompt, None nothing out of any.
        implementation: `auto`, `torch` (everywhere) or `triton` (not float64; CUDA, or Triton's interpreter).

    Raises:
        ContractError: shapes, dtypes or devices do not fit together.
        ImplementationUnavailableError: the name is unknown or that implementation does not cover x; another is never
            taken in its place.

    Example:
        >>> found = residual_statistics(torch.tensor([[[3.0, -4.0], [0.0, 2.0]]]), skip=torch.tensor([0]))
        >>> found.norm.tolist(), found.argmax.tolist(), found.dimension_sum_abs.tolist()
        ([[5.0, 2.0]], [[1, 1]], [[0.0, 2.0]])
    """
    _check(x, valid, skip)
    name = choose(x) if implementation == "auto" else implementation
    if name not in IMPLEMENTATIONS:
        raise ImplementationUnavailableError(
            f"residual implementation {name!r}", expected=f"auto or one of {', '.join(IMPLEMENTATIONS)}"
        )
    x = x.detach()
    if name == "torch":
        return _torch(x, valid, skip)
    reason = _why_not_triton(x)
    if reason is not None:
        raise ImplementationUnavailableError(
            f"residual implementation 'triton' does not cover this stream: {reason}",
            fix="Ask for 'torch', which covers it, or 'auto'.",
        )
    from . import _residual_triton

    return _residual_triton.run(x if x.stride(-1) == 1 else x.contiguous(), valid, skip)


def choose(x: Tensor) -> str:
    """Return the implementation that `auto` takes: triton on a CUDA device where it covers x, else torch.

    Example:
        >>> choose(torch.zeros(1, 2, 3))
        'torch'
    """
    return "triton" if x.is_cuda and _why_not_triton(x) is None else "torch"


def kept_tokens(x: Tensor, valid: Tensor | None, skip: Tensor | None) -> Tensor:
    """Return `[B]` int64: the valid tokens of each prompt but the one left out."""
    b, t, _ = x.shape
    if valid is None and skip is None:
        return torch.full((b,), t, device=x.device)
    kept = x.new_ones(b, t, dtype=torch.bool) if valid is None else valid
    return (kept if skip is None else kept & _not_skipped(t, skip)).sum(1)


def _not_skipped(t: int, skip: Tensor) -> Tensor:
    return torch.arange(t, device=skip.device) != skip[:, None]


def _why_not_triton(x: Tensor) -> str | None:
    if x.dtype not in LOW_PRECISION:
        return f"dtype {x.dtype}, where it has bfloat16, float16 and float32"
    if find_spec("triton") is None:
        return "triton is not installed"
    if x.is_cuda:
        return None
    from . import _residual_triton

    return None if _residual_triton.INTERPRETED else f"it is on {x.device}, not on a CUDA device"


def _check(x: Tensor, valid: Tensor | None, skip: Tensor | None) -> None:
    if x.dim() != 3 or x.shape[-1] == 0:
        _fail("x", f"shape {tuple(x.shape)}", "[B, T, M] with M at least 1")
    if x.dtype not in (*LOW_PRECISION, torch.float64):
        _fail("x", x.dtype, "bfloat16, float16, float32 or float64")
    wanted = (("valid", valid, x.shape[:2], torch.bool), ("skip", skip, x.shape[:1], torch.int64))
    for name, given, shape, dtype in wanted:
        if given is not None and (given.shape != shape or given.dtype != dtype or given.device != x.device):
            found = f"{given.dtype} {tuple(given.shape)} on {given.device}"
            _fail(name, found, f"{dtype} {tuple(shape)} on {x.device}")


def _fail(name: str, found: object, expected: object) -> None:
    raise ContractError(f"residual statistics, {name}", found=found, expected=expected)


def _torch(x: Tensor, valid: Tensor | None, skip: Tensor | None) -> ResidualStatistics:
    b, t, m = x.shape
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    norm, max_abs = (torch.empty(b, t, dtype=dtype, device=x.device) for _ in range(2))
    argmax = torch.empty(b, t, dtype=torch.int64, device=x.device)
    sums = torch.zeros(b, m, dtype=torch.float64, device=x.device)
    step = min(t, max(1, CHUNK_BYTES.get(x.device.type, 1 << 22) // (dtype.itemsize * max(b, 1) * m)))
    buffer = torch.empty(b, step, m, dtype=dtype, device=x.device)
    for first in range(0, t, max(step, 1)):
        part = slice(first, min(first + step, t))
        size = buffer[:, : part.stop - first].copy_(x[:, part]).abs_()
        torch.linalg.vector_norm(size, dim=-1, out=norm[:, part])
        torch.max(size, dim=-1, out=(max_abs[:, part], argmax[:, part]))
        sums += _sum_of_kept(size, part, valid, skip)
    if valid is not None:
        norm, max_abs = (statistic.masked_fill_(~valid, torch.nan) for statistic in (norm, max_abs))
        argmax.masked_fill_(~valid, -1)
    return ResidualStatistics(norm, max_abs, argmax, sums, kept_tokens(x, valid, skip), "torch")


def _sum_of_kept(size: Tensor, part: slice, valid: Tensor | None, skip: Tensor | None) -> Tensor:
    """Return Σ over kept tokens of |x| `[B, M]`; overwrites the others with 0 (they may hold NaN)."""
    dropped = None if valid is None else ~valid[:, part]
    if skip is not None:
        skipped = torch.arange(part.start, part.stop, device=size.device) == skip[:, None]
        dropped = skipped if dropped is None else dropped | skipped
    if dropped is not None:
        size.masked_fill_(dropped.unsqueeze(-1), 0.0)
    return size.sum(1).double()
