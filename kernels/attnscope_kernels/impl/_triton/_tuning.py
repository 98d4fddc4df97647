"""Block shapes: a small table, measured where it says so, so that no first call searches for minutes."""

from __future__ import annotations

import torch

from ...contract import AttentionCall
from ._operands import Tile
from ._tiles import INTERPRETED

HOPPER = 9

# (kernel, Hopper?) → largest head dim → tile, for 16 bits. Measured on an H200 with head dim 128 (BENCHMARKS.md);
# the others are the largest shapes whose registers and shared memory fit, read from the compiler.
TABLE: dict[tuple[str, bool], dict[int, Tile]] = {
    ("forward", True): {64: Tile(128, 128, 8, 3), 128: Tile(128, 128, 8, 3), 256: Tile(128, 64, 8, 2)},
    ("forward", False): {64: Tile(64, 64, 8, 2), 128: Tile(128, 64, 8, 2), 256: Tile(64, 32, 8, 2)},
    ("rows", True): {64: Tile(128, 128, 8, 3), 128: Tile(128, 128, 8, 2), 256: Tile(128, 64, 8, 2)},
    ("rows", False): {64: Tile(64, 64, 8, 2), 128: Tile(128, 64, 8, 2), 256: Tile(64, 32, 8, 2)},
    ("weights", True): {
        64: Tile(64, 128, 4, 2, 3, 168),
        128: Tile(64, 128, 4, 2, 3, 168),
        256: Tile(64, 64, 4, 2),
    },
    ("weights of long rows", True): {
        64: Tile(64, 128, 4, 3),
        128: Tile(64, 128, 4, 3),
        256: Tile(64, 64, 4, 2),
    },
    ("weights", False): {64: Tile(64, 64, 8, 2, 1), 128: Tile(64, 64, 8, 2, 1), 256: Tile(64, 32, 8, 2, 1)},
}
SINGLE = {64: Tile(64, 32, 4, 2), 128: Tile(64, 32, 4, 2), 256: Tile(64, 16, 4, 1)}
"""float32, every kernel and device. With 8 warps Triton 3.6 compiled wrong code at head dims 32 and 256."""
IN_THE_INTERPRETER = Tile(64, 64, 4, 1)


def tile(kernel: str, call: AttentionCall, *dims: int) -> Tile:
    """Return the tile of a kernel for a call whose padded head dims are `dims`."""
    if INTERPRETED:
        return IN_THE_INTERPRETER
    dim = max(dims)
    short = call.q.dtype != torch.float32
    hopper = torch.cuda.get_device_capability(call.q.device)[0] >= HOPPER
    table = TABLE.get((kernel, hopper), TABLE["weights", hopper]) if short else SINGLE
    return next(shape for largest, shape in sorted(table.items()) if dim <= largest)
