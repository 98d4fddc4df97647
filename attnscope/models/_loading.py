"""`attnscope.load`: one entry to every backend."""

from __future__ import annotations

from typing import Any

from ..core.errors import UnsupportedModelError
from . import backends
from ._base import Scope


def load(
    model: Any = None,
    *,
    backend: str = "hf",
    dtype: Any = "auto",
    device: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    random_weights: bool = False,
) -> Scope:
    """Load a model, ready for a tap on its attention.

    Args:
        model: a local folder, a hub id, a loaded transformers model (never moved, copied or left modified), or None
            for the embedded pocket model. Models without a causal mask load too; see `require_causal`.
        backend: a name in `attnscope.models.backends.names()`.
        dtype: `auto` (as stored; float32 on the CPU), a name such as `bfloat16`, or a torch.dtype.
        device: `cpu`, `cuda`, `cuda:1`, …; None means cuda if there is one, else cpu.
        device_map: passed to transformers in place of `device`, to spread a model over devices.
        revision: branch, tag or commit of a hub id.
        tokenizer: a tokenizer, or the folder or hub id of one; None takes the model's own, if it has one.
        trust_remote_code: run modelling code that the repository ships. Only safetensors weights are ever read.
        random_weights: build the model from its configuration alone, with seeded random weights.

    Returns:
        Scope: the model behind one tap.

    Raises:
        ModelNotFoundError: no such folder or hub id, or the hub cannot be reached.
        CorruptModelError: its files cannot be read, or do not fit its configuration.
        UnsupportedModelError: its attention cannot be tapped or expressed, or its weights are pickled.
        DeviceError: unknown device or dtype, or not enough memory.
        UnknownNameError: no such backend.

    Example:
        >>> load("Qwen/Qwen3-0.6B", device="cuda").info.n_layers  # doctest: +SKIP
        28
    """
    scope: Scope = backends.get(backend)(
        model,
        dtype=dtype,
        device=device,
        device_map=device_map,
        revision=revision,
        tokenizer=tokenizer,
        trust_remote_code=trust_remote_code,
        random_weights=random_weights,
    )
    return scope


def require_causal(scope: Scope, what: str) -> None:
    """Refuse a model whose queries see later keys.

    Raises:
        UnsupportedModelError: the model is not causal; `what` names the measurement that needs it.

    Example:
        >>> require_causal(load(backend="toy"), "the sink rate")
    """
    if not scope.info.causal:
        raise UnsupportedModelError(
            f"{what} of {scope.info.model_id}",
            found=f"{scope.info.architecture}, whose attention is not causal",
            expected="a causal decoder",
            fix="Choose a decoder, or measures that do not need causality (entropy, received mass, distances).",
        )
