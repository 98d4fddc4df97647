"""q, k and v as the kernels read them: tensor descriptors with whole 16-byte rows, and how tiles are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ...contract import AttentionCall
from ...errors import ImplementationUnavailableError
from ._masks import HOLE, LOG2E, Masks, masks_of
from ._tiles import INTERPRETED

LARGEST_DIM = 256
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Tile:
    """Block shape and launch parameters of a kernel.

    Attributes:
        queries: queries a block.
        keys: keys a block.
        warps: of one program.
        stages: tiles in flight.
        programs: that one multiprocessor runs at once, where it matters.
        registers: of one thread at most; None leaves it to the compiler.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    programs: int = 2
    registers: int | None = None

    def launch(self) -> dict[str, int]:
        """Return the launch parameters."""
        limit = {} if self.registers is None else {"maxnreg": self.registers}
        return {"num_warps": self.warps, "num_stages": self.stages, **limit}


@dataclass(frozen=True, eq=False)
class Operands:
    """One call, ready to launch.

    Attributes:
        call: as given.
        q, k, v: with a contiguous last axis whose rows are whole 16-byte units.
        dim, value_dim: powers of two that hold D and Dv.
        scale: factor on q·k that gives log2 units, or what tanh takes where there is a softcap.
        cap: the softcap in log2 units, or 0.
        precision: of products, as `tl.dot` names it.
        masks: what is hidden.
        factor: `[H]` float32, one more factor a head.
        sink: `[H]` float32 sink logits in log2 units, or None.
    """

    call: AttentionCall
    q: Tensor
    k: Tensor
    v: Tensor
    dim: int
    value_dim: int
    scale: float
    cap: float
    precision: str
    masks: Masks
    factor: Tensor | None
    sink: Tensor | None

    def describe(self, name: str, rows: int) -> TensorDescriptor:
        """Return the descriptor of q, k or v with blocks of `rows` rows."""
        x = getattr(self, name)
        width = self.value_dim if name == "v" else self.dim
        return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, width])


def operands_of(call: AttentionCall) -> Operands:
    """Return the operands of a call.

    Raises:
        ImplementationUnavailableError: a dtype, head dim or number of knockouts that the kernels do not cover.
    """
    check_covered(call)
    factor, sink = call.logit_scale, call.sink_logits
    return Operands(
        call,
        q=aligned(call.q.detach()),
        k=aligned(call.k.detach()),
        v=aligned(call.v.detach()),
        dim=power(call.q.shape[3]),
        value_dim=power(call.v.shape[3]),
        scale=call.scale * LOG2E if call.softcap is None else call.scale / call.softcap,
        cap=0.0 if call.softcap is None else call.softcap * LOG2E,
        precision="tf32x3" if call.q.dtype == torch.float32 and not INTERPRETED else "ieee",
        masks=masks_of(call),
        factor=None if factor is None else factor.detach().float().contiguous(),
        sink=None if sink is None else (sink.detach().float() * LOG2E).contiguous(),
    )


def check_covered(call: AttentionCall) -> None:
    """Raise ImplementationUnavailableError where the kernels do not cover a call; the message names what does."""
    reason = uncovered(call)
    if reason is not None:
        raise ImplementationUnavailableError(
            f"implementation 'triton' for layer {call.layer}",
            found=reason,
            expected=f"bfloat16, float16 or float32, head dims up to {LARGEST_DIM} and at most {HOLE} knockouts",
            fix="Ask for implementation='tiled', which covers it, or 'auto'.",
        )


def uncovered(call: AttentionCall) -> str | None:
    """Return what the kernels do not cover in a call, or None."""
    if call.q.dtype not in DTYPES:
        return f"dtype {str(call.q.dtype).removeprefix('torch.')}"
    for name, x in (("head dim", call.q), ("value dim", call.v)):
        if x.shape[3] > LARGEST_DIM:
            return f"{name} {x.shape[3]}"
    return f"{len(call.knockouts)} knockouts" if len(call.knockouts) > HOLE else None


def aligned(x: Tensor) -> Tensor:
    """Return x `[B, heads, T, D]` with rows of whole 16-byte units, as a copy only where it must be."""
    unit = 16 // x.element_size()
    short = -x.shape[3] % unit
    if short:
        return torch.nn.functional.pad(x, (0, short))
    whole = all(
        stride % unit == 0 and stride > 0 for stride, size in zip(x.stride()[:3], x.shape, strict=False) if size > 1
    )
    if x.stride(3) == 1 and whole and x.data_ptr() % 16 == 0:
        strides = [max(stride - stride % unit, unit) for stride in x.stride()[:3]]  # of axes of length 1 any will do
        return x.as_strided(x.shape, (*strides, 1))
    return x.clone(memory_format=torch.contiguous_format)


def power(size: int) -> int:
    """Return the power of two that holds a head dim, 16 at least."""
    return max(16, 1 << (size - 1).bit_length())


@cache
def processors(index: int | None) -> int:
    """Return how many multiprocessors a device has; a few where kernels are interpreted."""
    return 2 if index is None else torch.cuda.get_device_properties(index).multi_processor_count
