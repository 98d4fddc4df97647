"""Say what ran out of device memory in a forward, and about how many tokens would have fitted."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..core.errors import DeviceError

if TYPE_CHECKING:
    from ..core.batch import Batch
    from ..models._base import Scope

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = r"([\d.]+) (bytes|KiB|MiB|GiB|TiB)"


@dataclass(frozen=True)
class Shortage:
    """What torch's message says, in bytes; None where it says nothing.

    Attributes:
        gpu: index of the device.
        asked: size of the allocation that failed.
        free: free on the device.
        used: in torch's tensors.
        idle: held by torch's allocator and in no tensor; in pieces, each smaller than what was asked for.
        allowed: limit that the process has set itself.
    """

    gpu: int | None
    asked: int | None
    free: int | None
    used: int | None
    idle: int | None
    allowed: int | None

    @property
    def peak(self) -> int | None:
        """Bytes that torch's tensors would have had."""
        return None if self.used is None or self.asked is None else self.used + self.asked

    @property
    def capacity(self) -> int | None:
        """Bytes that torch's tensors could have at most."""
        if self.used is None or self.free is None:
            return None
        room = self.used + (self.idle or 0) + self.free
        return room if self.allowed is None else min(room, self.allowed)


@contextmanager
def explained(scope: Scope, batch: Batch) -> Iterator[None]:
    """Turn an out-of-memory error of a forward into one that says where it happened and what would fit.

    The failed forward's tensors are let go of, so that a smaller batch can follow.

    Raises:
        DeviceError: names the module and the line that asked, how much, how much was free, and about how many tokens
            fit if memory grows with the tokens of the batch.

    Example:
        >>> with explained(scope, batch):  # doctest: +SKIP
        ...     scope.run(batch)
    """
    before = _allocated()
    try:
        yield
    except torch.OutOfMemoryError as error:
        shortage = read_shortage(str(error))
        start = before.get(shortage.gpu if shortage.gpu is not None else -1)
        failure = _failure(scope, batch, shortage, start, _place(scope.model, error.__traceback__))
        _let_go(error.__traceback__)
        raise failure from error


def read_shortage(message: str) -> Shortage:
    """Read torch's out-of-memory message.

    Example:
        >>> read_shortage("CUDA out of memory. Tried to allocate 2.00 KiB. GPU 1 has a total capacity of 9.00 GiB "
        ...               "of which 1.00 KiB is free.").asked
        2048
    """
    gpu = re.search(r"GPU (\d+) has", message)
    return Shortage(
        int(gpu.group(1)) if gpu else None,
        _size(rf"Tried to allocate {_SIZE}", message),
        _size(rf"of which {_SIZE} is free", message),
        _size(rf"{_SIZE} is allocated by PyTorch", message),
        _size(rf"{_SIZE} is reserved by PyTorch but unallocated", message),
        _size(rf"{_SIZE} allowed", message),
    )


def fitting_tokens(tokens: int, start: int, peak: int, capacity: int) -> int | None:
    """Return about how many tokens fit, rounded down to two digits, if what a batch needs grows with its tokens.

    None where that explains nothing: all of them would fit (the free memory is in pieces), or not one does.

    Args:
        tokens: of the batch that did not fit, padding included.
        start: bytes in use before the batch.
        peak: bytes that the batch asked to have in use at once.
        capacity: bytes that there are.

    Example:
        >>> fitting_tokens(131072, start=16, peak=96, capacity=79)
        100000
    """
    if peak <= start or not start < capacity < peak:
        return None
    fit = int(tokens * (capacity - start) / (peak - start))
    digits = 10 ** max(0, len(str(fit)) - 2)
    return fit // digits * digits or None


def _failure(scope: Scope, batch: Batch, shortage: Shortage, start: int | None, where: str) -> DeviceError:
    prompts, length = batch.input_ids.shape
    device = scope.device if shortage.gpu is None else f"cuda:{shortage.gpu}"
    free = None if shortage.free is None else shortage.free + (shortage.idle or 0)
    fit, in_pieces = None, False
    if start is not None and shortage.peak is not None and shortage.capacity is not None:
        fit = fitting_tokens(prompts * length, start, shortage.peak, shortage.capacity)
        in_pieces = shortage.capacity >= shortage.peak
    return DeviceError(
        f"batch of {prompts} × {length:,} tokens on {device}",
        found=f"out of memory: {where} asked for {_words(shortage.asked)} where {_words(free)} was free",
        expected="a batch that fits" + (f", about {fit:,} tokens (if memory grows with the tokens)" if fit else ""),
        fix=_advice(prompts, length, fit, scope.info.dtype, in_pieces),
    )


def _advice(prompts: int, length: int, fit: int | None, dtype: str, in_pieces: bool) -> str:
    about = f", about {fit}" if fit else ""
    if prompts > 1 and (fit is None or fit >= length):
        smaller = f"a smaller --batch-tokens{about}"
    else:
        smaller = f"a smaller --context{about}" + (" and as many --batch-tokens" if prompts > 1 else "")
    ways = [smaller, *(["--dtype bfloat16"] if dtype in ("float32", "float64") else []), "or a larger device"]
    pieces = " What is free lies in pieces: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True may be enough."
    return f"Use {', '.join(ways)}.{pieces if in_pieces else ''}"


def _place(model: object, trace: TracebackType | None) -> str:
    """Name the innermost module of the model in a traceback, and the innermost line outside of torch."""
    named = model.named_modules() if isinstance(model, nn.Module) else ()
    names = {id(module): name or type(module).__name__ for name, module in named}
    place, line, library = type(model).__name__, "", str(Path(torch.__file__).parent)
    for frame, number in traceback.walk_tb(trace):
        place = names.get(id(frame.f_locals.get("self")), place)
        file = frame.f_code.co_filename
        if not file.startswith(library):
            source = linecache.getline(file, number).strip()[:100]
            line = f" ({'/'.join(Path(file).parts[-2:])}:{number}{f': {source}' if source else ''})"
    return place + line


def _let_go(trace: TracebackType | None) -> None:
    """Drop the local variables of the frames that have ended."""
    traceback.clear_frames(trace)
    for frame, _ in traceback.walk_tb(trace):
        frame.f_locals.get("self")  # before Python 3.13 this copy keeps what it held until it is read again


def _allocated() -> dict[int, int]:
    """Return the bytes in tensors on every CUDA device."""
    if not torch.cuda.is_initialized():
        return {}
    return {index: torch.cuda.memory_allocated(index) for index in range(torch.cuda.device_count())}


def _size(pattern: str, message: str) -> int | None:
    found = re.search(pattern, message)
    return int(float(found.group(1)) * _UNITS[found.group(2)]) if found else None


def _words(size: int | None) -> str:
    if size is None:
        return "an unknown amount"
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"
