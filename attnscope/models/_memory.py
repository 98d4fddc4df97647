"""Refuse a model that cannot fit, before loading it."""

from __future__ import annotations

from pathlib import Path

import torch

from ..core.errors import DeviceError

_HEADROOM = 1.1


def check_fits(n_parameters: int, dtype: torch.dtype, device: torch.device, *, name: str) -> None:
    """Check that the weights fit into the device's free memory, with a tenth more for activations.

    Raises:
        DeviceError: they do not; the message gives both sizes and the ways out.
    """
    needed = int(n_parameters * dtype.itemsize * _HEADROOM)
    free = free_memory(device)
    if free is None or needed <= free:
        return
    short = str(dtype).removeprefix("torch.")
    raise DeviceError(
        f"model {name} on {device}",
        found=f"{free / 2**30:.1f} GiB free",
        expected=f"{needed / 2**30:.1f} GiB for {n_parameters / 1e9:.2f} billion parameters in {short}",
        fix="Use dtype='bfloat16', a larger device, device_map='auto' over several, or a smaller model."
        if dtype.itemsize > 2
        else "Use a larger device, device_map='auto' over several, or a smaller model.",
    )


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [limit for limit in (_available_ram(), _cgroup_room()) if limit is not None]
    return min(limits) if limits else None


def _available_ram() -> int | None:
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_room() -> int | None:
    folder = Path("/sys/fs/cgroup")
    files = [folder / name for name in ("memory.max", "memory.current", "memory.stat")]
    if not all(file.is_file() for file in files):
        return None
    limit, used, stat = (file.read_text().split() for file in files)
    if limit == ["max"]:
        return None
    cache = dict(zip(stat[::2], stat[1::2], strict=False)).get("inactive_file", "0")
    return max(0, int(limit[0]) - int(used[0]) + int(cache))
