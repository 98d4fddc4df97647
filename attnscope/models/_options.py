"""Read the dtype and the device that the user asked for."""

from __future__ import annotations

from typing import Any

import torch

from ..core.errors import DeviceError

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float64": torch.float64,
    "fp64": torch.float64,
}


def read_device(device: Any = None) -> torch.device:
    """Return the device; None means cuda if there is one, else cpu.

    Raises:
        DeviceError: unknown, or not on this machine.

    Example:
        >>> read_device("cpu")
        device(type='cpu')
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"device {device!r}", found="no such device", expected="cpu, cuda or cuda:N") from error
    if chosen.type == "cpu":
        return chosen
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) < count:
            return chosen
        raise DeviceError(
            f"device {str(device)!r}",
            found=f"{count} CUDA devices on this machine",
            expected=f"cuda:0 to cuda:{count - 1}" if count else "a CUDA device and driver",
            fix="Use device='cpu'." if not count else None,
        )
    raise DeviceError(f"device {str(device)!r}", found="an untested kind of device", expected="cpu, cuda or cuda:N")


def read_dtype(dtype: Any, device: torch.device, stored: torch.dtype | None = None) -> torch.dtype:
    """Return the dtype of the weights; `auto` means as stored, and float32 on the CPU.

    Raises:
        DeviceError: unknown, or not a floating-point one.

    Example:
        >>> read_dtype("auto", torch.device("cpu"))
        torch.float32
    """
    if dtype is None or dtype == "auto":
        return torch.float32 if device.type == "cpu" or stored is None else stored
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        expected = "auto, float32, bfloat16, float16 or float64"
        raise DeviceError(f"dtype {dtype!r}", found="no such floating-point dtype", expected=expected)
    return _DTYPES[name]
