"""Build a model from its configuration alone: with random weights on its device, or without weights at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..core.errors import CorruptModelError, DependencyError, DeviceError, UnsupportedModelError
from ._config import first_line

META = torch.device("meta")


def random_model(
    kind: Any, config: Any, dtype: torch.dtype, device: torch.device, *, seed: int, name: str, code: bool = False
) -> Any:
    """Return a model whose weights are drawn on `device` itself; the global random state is left alone.

    The same seed gives the same weights on the same kind of device.

    Args:
        kind: a transformers model class, see `model_class`.
        config: its configuration.
        dtype: of the weights.
        device: where they are made.
        seed: of the weights.
        name: what errors call the model.
        code: whether the model's own code may run.

    Raises:
        DeviceError: the device is too small.
    """
    try:
        with _seeded(device, seed):
            return _build(kind, config, dtype, device, code).to(device)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"random weights of {name} on {device}",
            found="out of memory while making them",
            fix="Use a smaller dtype or a larger device.",
        ) from error


def meta_model(kind: Any, config: Any, dtype: torch.dtype, *, name: str, code: bool = False) -> Any:
    """Return the model without weights: it has shapes, costs no memory, and its forward makes shapes only.

    Raises:
        CorruptModelError: the configuration's values make no model.
        DependencyError: the model needs a library that is absent.
        UnsupportedModelError: the model needs code of its own.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = meta_model(LlamaForCausalLM, LlamaConfig(num_hidden_layers=2), torch.float32, name="llama")
        >>> count(model)
        666914816
    """
    try:
        return _build(kind, config, dtype, META, code)
    except ImportError as error:
        raise DependencyError(f"model {name}", found=error, expected="the library it needs") from error
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise UnsupportedModelError(
                f"model {name}",
                found="modelling code of its own",
                expected="a model that transformers knows",
                fix="If you trust that code, pass trust_remote_code=True.",
            ) from error
        raise CorruptModelError(
            f"configuration of {name}", found=first_line(error), expected=f"values that make a {kind.__name__}"
        ) from error


def count(model: torch.nn.Module) -> int:
    """Return the number of parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _build(kind: Any, config: Any, dtype: torch.dtype, device: torch.device, code: bool) -> Any:
    auto = kind.__name__.startswith("AutoModel")
    build = kind.from_config if auto else kind._from_config
    options = {"trust_remote_code": True} if auto and code else {}
    with device:
        return build(config, dtype=dtype, **options).eval().requires_grad_(False)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the CPU's generator and this device's, no other, and restore both."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
