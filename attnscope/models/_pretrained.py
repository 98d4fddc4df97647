"""Load a transformers model: from files, from a configuration alone, or take a loaded one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import CorruptModelError, DependencyError, DeviceError, ModelError, UnsupportedModelError
from ._config import first_line
from ._folder import check_weights
from ._memory import check_fits
from ._options import read_device, read_dtype
from ._quiet import quiet_transformers
from ._random import count, meta_model, random_model
from ._shape import Shape, read_shape, read_tokenizer


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model as it was loaded.

    Attributes:
        model: a transformers PreTrainedModel.
        tokenizer: its tokenizer, or None.
        model_id: the folder, hub id or configuration that it was asked for by.
        revision: commit of a hub id.
        weights_seed: seed of random weights; None where weights were read or given.
    """

    model: Any
    tokenizer: Any
    model_id: str
    revision: str | None = None
    weights_seed: int | None = None


def load_pretrained(
    model: Any = None,
    *,
    config: Any = None,
    dtype: Any = "auto",
    device: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    random_weights: bool = False,
    seed: int = 0,
) -> Loaded:
    """Return the model with its tokenizer and where it came from; arguments as in `attnscope.load`."""
    if model is not None and not isinstance(model, str | Path):
        return _take(model, config, random_weights, dtype, device, tokenizer)
    shape = read_shape(
        model,
        config=config,
        dtype=dtype,
        device=device,
        revision=revision,
        tokenizer=tokenizer,
        trust_remote_code=trust_remote_code,
        random_weights=random_weights,
    )
    with quiet_transformers():
        loaded = _filled(shape, seed, device_map) if random_weights else _read(shape, device_map)
    revision = shape.source.commit or revision
    return Loaded(loaded, shape.tokenizer, shape.source.name, revision, seed if random_weights else None)


def _take(model: Any, config: Any, random_weights: bool, dtype: Any, device: Any, tokenizer: Any) -> Loaded:
    from transformers import PreTrainedModel

    if config is not None or random_weights:
        raise ModelError(
            f"model of class {type(model).__name__}",
            found="a loaded model beside " + ("a configuration" if config is not None else "random_weights=True"),
            expected="the loaded model alone",
            fix="A loaded model is taken as it is; give its configuration in its place: config=model.config.",
        )
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(
            "model", found=f"a {type(model).__name__}", expected="a folder, a hub id or a transformers PreTrainedModel"
        )
    if dtype not in (None, "auto") and read_dtype(dtype, model.device) != model.dtype:
        raise _not_as_asked("dtype", model.dtype, read_dtype(dtype, model.device))
    if device is not None:
        target = read_device(device)
        if target.type != model.device.type or target.index not in (None, model.device.index or 0):
            raise _not_as_asked("device", model.device, target)
    commit = getattr(model.config, "_commit_hash", None)
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return Loaded(model, read_tokenizer(tokenizer, needed=tokenizer is not None), name, commit)


def _indexed(device: torch.device) -> str:
    return f"cuda:{torch.cuda.current_device() if device.index is None else device.index}"


def _not_as_asked(what: str, found: object, asked: object) -> DeviceError:
    return DeviceError(
        f"{what} of the loaded model",
        found=found,
        expected=f"{asked}, as asked",
        fix="A loaded model is never moved or cast; call model.to(...) yourself first.",
    )


def _filled(shape: Shape, seed: int, device_map: Any) -> Any:
    """Make random weights, once it is known that they fit."""
    name = shape.source.name
    if device_map is not None:
        raise DeviceError(
            f"random weights of {name}",
            found=f"device_map={device_map!r}",
            expected="one device",
            fix="Leave device_map out and name the device.",
        )
    n_parameters = count(meta_model(shape.kind, shape.config, shape.dtype, name=name, code=shape.code))
    check_fits(n_parameters, shape.dtype, shape.device, name=name)
    return random_model(shape.kind, shape.config, shape.dtype, shape.device, seed=seed, name=name, code=shape.code)


def _read(shape: Shape, device_map: Any) -> Any:
    folder = shape.source.folder
    assert folder is not None
    n_parameters = check_weights(folder)
    if device_map is None:
        check_fits(n_parameters, shape.dtype, shape.device, name=shape.source.name)
        device_map = {"": _indexed(shape.device)} if shape.device.type == "cuda" else None
    options: dict[str, Any] = {"trust_remote_code": True} if shape.code else {}
    try:
        loaded, report = shape.kind.from_pretrained(
            folder,
            config=shape.config,
            dtype=shape.dtype,
            device_map=device_map,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"model {str(folder)!r}", found="out of memory while loading", fix="Use a smaller dtype or a larger device."
        ) from error
    except ImportError as error:
        raise DependencyError(f"model {str(folder)!r}", found=error, expected="the library it needs") from error
    except Exception as error:
        raise CorruptModelError(
            f"weights of {str(folder)!r}",
            found=first_line(error),
            expected=f"weights that fit {folder.name}/config.json",
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CorruptModelError(
            f"weights of {str(folder)!r}",
            found=f"{len(missing)} tensors missing, among them {', '.join(missing[:3])}",
            expected=f"every weight of {type(loaded).__name__}",
            fix="Download or copy the weights again.",
        )
    return loaded.eval().requires_grad_(False)
