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
        raise KernelMemoryError(
            f"attention of layer {call.layer} at {tokens:,} tokens, {what}",
            found=f"{before / 2**30:.2f} GiB of GPU memory left, and no room for {asked / 2**30:.2f} GiB",
            expected="room for it",
            fix=f"{_advice(tokens, before, asked)}"
            " Otherwise fewer prompts a batch, fewer statistics, or a larger device.",
        ) from error


def _advice(tokens: int, before: int, asked: int) -> str:
    """Return what would help, as far as the sizes tell."""
    if asked > before:
        return f"About {int(tokens * before / asked):,} tokens would fit here."
    if asked:
        return "What is left is in pieces that PYTORCH_ALLOC_CONF=expandable_segments:True would join."
    return "The allocator does not say how much it was asked for."


def _room(call: AttentionCall) -> int:
    """Return the bytes that this process may still allocate on the call's device."""
    if not call.q.is_cuda:
        return 0
    device = call.q.device
    free, total = torch.cuda.mem_get_info(device)
    reserved, allocated = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    allowed = int(torch.cuda.get_per_process_memory_fraction(device) * total)
    return max(0, min(free, allowed - reserved)) + reserved - allocated


def _asked(error: torch.OutOfMemoryError) -> int:
    """Return the bytes that the allocator says it was asked for, 0 where it does not say."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) ([KMGT]?i?B)", str(error))
    if found is None:
        return 0
    units = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
    return int(float(found[1]) * 2 ** units.get(found[2], 0))
