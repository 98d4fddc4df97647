"""What is installed, which kernels and devices work, and what a model would need."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from typing import Any

OPTIONAL = {
    "triton": "triton",
    "transformer-lens": "transformer-lens",
    "nnsight": "nnsight",
    "streamlit": "app",
    "ray": "ray",
    "jupyterlab": "notebooks",
}
REQUIRED = ("torch", "transformers", "datasets", "xarray", "zarr", "pydantic", "plotly", "safetensors")


@dataclass(frozen=True)
class Finding:
    """One line of the check-up.

    Attributes:
        what: the thing.
        works: True, False, or None for things that are optional and absent.
        detail: version, size, or the reason and the remedy.
    """

    what: str
    works: bool | None
    detail: str


def libraries() -> list[Finding]:
    """Return the required and optional libraries."""
    found = [_library(name, None) for name in REQUIRED]
    return found + [_library(name, extra) for name, extra in OPTIONAL.items()]


def kernels() -> list[Finding]:
    """Run every kernel implementation on a small call on every device, against the dense reference."""
    import torch

    from attnscope_kernels import AttentionCall, Want, attend, available

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 37, 16, generator=generator) for heads in (4, 2, 2))
    want = Want(entropy=True, received=True)
    findings = []
    for name, reason in available().items():
        for device in _torch_devices():
            if reason is not None:
                findings.append(Finding(f"kernel {name} on {device}", None, reason))
                continue
            call = AttentionCall(layer=0, q=q.to(device), k=k.to(device), v=v.to(device), scale=0.25)
            result, truth = attend(call, want, name), attend(call, want, "reference")
            assert result.received is not None
            assert truth.received is not None
            error = float((result.received - truth.received).abs().max())
            findings.append(Finding(f"kernel {name} on {device}", error < 1e-2, f"largest error {error:.1e}"))
    return findings


def devices() -> list[Finding]:
    """Return the processors and their memory."""
    import torch

    from .models._memory import free_memory

    free = free_memory(torch.device("cpu"))
    memory = f"{free / 2**30:.1f} GiB free" if free is not None else "free memory unknown"
    found = [Finding("cpu", True, f"{os.cpu_count()} cores, {memory}, {platform.machine()}")]
    if not torch.cuda.is_available():
        return [*found, Finding("cuda", None, "no CUDA device; everything runs on the CPU")]
    for index in range(torch.cuda.device_count()):
        left, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(Finding(f"cuda:{index}", True, f"{name}, {left / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    return found


def model_needs(model: str | None, context: int | None = None, config: Any = None) -> list[Finding]:
    """Return what a model would need, read from its files, or its configuration alone, without loading it.

    Args:
        model: a folder or hub id; None where there is a configuration.
        context: tokens a prompt; None takes the model's own context.
        config: as in `attnscope.load`.

    Raises:
        ModelError, CorruptModelError, UnsupportedModelError, UnknownNameError: as in `attnscope.load`.

    Example:
        >>> model_needs(None, config="gpt2")[0].detail
        '124.4 million'
    """
    import torch

    from .models._folder import check_weights
    from .models._memory import free_memory
    from .models._quiet import quiet_transformers
    from .models._random import count, meta_model
    from .models._shape import read_shape

    shape = read_shape(model, config=config, random_weights=config is not None)
    source, device, text = shape.source, shape.device, shape.config.get_text_config()
    if source.folder is not None:
        n_parameters = check_weights(source.folder)
    else:
        with quiet_transformers():
            n_parameters = count(meta_model(shape.kind, shape.config, shape.dtype, name=source.name))
    free = free_memory(device)
    found = [Finding("parameters", True, f"{n_parameters / 1e6:.1f} million")]
    for dtype in (torch.float32, torch.bfloat16):
        size = n_parameters * dtype.itemsize
        fits = None if free is None else size * 1.1 < free
        name = str(dtype).removeprefix("torch.")
        found.append(Finding(f"weights in {name}", fits, f"{size / 2**30:.2f} GiB on {device}"))
    tokens = context or getattr(text, "max_position_embeddings", None)
    if tokens is not None:
        heads = getattr(text, "num_attention_heads", 0)
        dense = heads * tokens**2 * 4
        linear = heads * tokens * 4 * 12
        found.append(
            Finding(
                f"statistics of {tokens:,} tokens",
                None if free is None else linear < free,
                f"{linear / 2**30:.2f} GiB of row and column results a layer; "
                f"its attention matrices would be {dense / 2**30:.1f} GiB",
            )
        )
    return found


def _torch_devices() -> list[str]:
    import torch

    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _library(name: str, extra: str | None) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        if extra is None:
            return Finding(name, False, "not installed; reinstall attnscope")
        return Finding(name, None, f"not installed; pip install 'attnscope[{extra}]'")
