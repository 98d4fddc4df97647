"""Out of memory, said so that the user can act on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...contract import AttentionCall
from ...errors import KernelMemoryError


@contextmanager
def named(what: str, call: AttentionCall) -> Iterator[None]:
    """Turn a CUDA out-of-memory error into one that names the tensor and the context that would fit.

    Raises:
        KernelMemoryError: memory ran out inside.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        before, asked = _room(call), _asked(error)
        tokens = call.k.shape[2]
        needed = max(asked, before + 1)
        raise KernelMemoryError(
            f"attention of layer {call.layer} at {tokens:,} tokens, {what}",
            found=f"{before / 2**30:.2f} GiB of GPU memory left, and no room for {asked / 2**30:.2f} GiB",
            expected="room for it",
            fix=f"About {int(tokens * before / needed):,} tokens would fit here; or use fewer prompts a batch, ask for"
            " fewer statistics, or a larger device.",
        ) from error


def _room(call: AttentionCall) -> int:
    """Return the bytes that can still be allocated on the call's device."""
    if not call.q.is_cuda:
        return 0
    free, _ = torch.cuda.mem_get_info(call.q.device)
    return free + torch.cuda.memory_reserved(call.q.device) - torch.cuda.memory_allocated(call.q.device)


def _asked(error: torch.OutOfMemoryError) -> int:
    """Return the bytes that the allocator says it was asked for, 0 where it does not say."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) ([KMGT]?i?B)", str(error))
    if found is None:
        return 0
    units = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
    return int(float(found[1]) * 2 ** units.get(found[2], 0))
