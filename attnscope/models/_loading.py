"""`attnscope.load`: one entry to every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import UnsupportedModelError
from . import backends
from ._base import Scope

if TYPE_CHECKING:
    from ._outline import Outline


def load(
    model: Any = None,
    *,
    config: Any = None,
    backend: str = "hf",
    dtype: Any = "auto",
    device: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    random_weights: bool = False,
    seed: int = 0,
) -> Scope:
    """Load a model, ready for a tap on its attention.

    Args:
        model: a local folder, a hub id, a loaded transformers model (never moved, copied or left modified), or None
            for the embedded pocket model. Models without a causal mask load too; see `require_causal`.
        config: in place of a model, its configuration alone: a transformers config.json (a file that ends in .json),
            the name of a shape that attnscope ships (`gpt2`, `llama-3.1-8b`, `qwen3-0.6b`, `qwen3-32b`), or a
            transformers configuration; needs `random_weights`.
        backend: a name in `attnscope.models.backends.names()`.
        dtype: `auto` (as stored; float32 on the CPU), a name such as `bfloat16`, or a torch.dtype.
        device: `cpu`, `cuda`, `cuda:1`, …; None means cuda if there is one, else cpu.
        device_map: passed to transformers in place of `device`, to spread a model over devices.
        revision: branch, tag or commit of a hub id.
        tokenizer: a tokenizer, or the folder or hub id of one; None takes the model's own, if it has one.
        trust_remote_code: run modelling code that the repository ships. Only safetensors weights are ever read.
        random_weights: build the model from its configuration alone (weights of a folder are not read), with random
            weights that are made on the device itself. `info.weights` says so, and so does every report.
        seed: of random weights.

    Returns:
        Scope: the model behind one tap.

    Raises:
        ModelError: model and configuration together, a configuration without `random_weights`, or the reverse.
        ModelNotFoundError: no such folder, hub id or file, or the hub cannot be reached.
        CorruptModelError: its files cannot be read, or do not fit its configuration.
        UnsupportedModelError: its attention cannot be tapped or expressed, or its weights are pickled.
        DeviceError: unknown device or dtype, or not enough memory.
        UnknownNameError: no such backend, or no such shape.

    Example:
        >>> load("Qwen/Qwen3-0.6B", device="cuda").info.n_layers  # doctest: +SKIP
        28
        >>> load(config="llama-3.1-8b", random_weights=True, device="cuda").info.n_layers  # doctest: +SKIP
        32
    """
    scope: Scope = backends.get(backend)(
        model,
        config=config,
        dtype=dtype,
        device=device,
        device_map=device_map,
        revision=revision,
        tokenizer=tokenizer,
        trust_remote_code=trust_remote_code,
        random_weights=random_weights,
        seed=seed,
    )
    return scope


def outline(model: Any = None, *, backend: str = "hf", seed: int = 0, **options: Any) -> Outline | None:
    """Return the ModelInfo and tokenizer that `load` will give with random weights, before any weights are made.

    None where that cannot be known beforehand: other backends, and models whose forward needs numbers.

    Args:
        model: as in `load`.
        backend: as in `load`.
        seed: as in `load`.
        options: further arguments of `load`.

    Raises:
        ModelError, CorruptModelError, UnsupportedModelError, DeviceError, UnknownNameError: as in `load`.

    Example:
        >>> outline(config="llama-3.1-8b", device="cpu").info.n_parameters
        8030261248
    """
    if backend != "hf":
        return None
    from ._outline import outline as make
    from ._shape import read_shape

    known = {name: value for name, value in options.items() if name not in ("device_map", "random_weights")}
    return make(read_shape(model, random_weights=True, **known), seed)


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
