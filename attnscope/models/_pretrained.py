"""Load a transformers model and its tokenizer from a folder, a hub id, or take a loaded one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..core.errors import CorruptModelError, DependencyError, DeviceError, UnsupportedModelError
from ..core.paths import data_path
from ._folder import check_folder
from ._hub import local_folder
from ._memory import check_fits
from ._options import read_device, read_dtype
from ._quiet import quiet_transformers
from ._refusals import refuse_by_name

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")

Loaded = tuple[Any, Any, str, str | None]
"""(model, tokenizer or None, model id, revision or None)."""


def load_pretrained(
    model: Any = None,
    *,
    dtype: Any = "auto",
    device: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    random_weights: bool = False,
) -> Loaded:
    """Return the model, its tokenizer (or None), its id and its revision; arguments as in `attnscope.load`."""
    if model is not None and not isinstance(model, str | Path):
        return _take(model, dtype, device, tokenizer)
    chosen = read_device(device)
    wanted = read_dtype(dtype, chosen)  # fails before any download
    if model is None:
        folder, commit, name = data_path("pocket"), None, "pocket"
    else:
        folder, commit = local_folder(model, revision=revision, code=trust_remote_code)
        name = str(model)
    n_parameters = check_folder(folder, need_weights=not random_weights)
    with quiet_transformers():
        config = read_config(folder, trust_remote_code)
        refuse_by_name(config)
        wanted = read_dtype(dtype, chosen, getattr(config, "dtype", None))
        if device_map is None:
            check_fits(n_parameters, wanted, chosen, name=name)
            device_map = {"": _indexed(chosen)} if chosen.type == "cuda" else None
        kind = _model_class(config, trust_remote_code)
        if random_weights:
            loaded = _random(kind, config, wanted, chosen)
        else:
            loaded = _read(kind, folder, config, wanted, device_map, trust_remote_code)
        loaded = loaded.eval().requires_grad_(False)
        return loaded, read_tokenizer(tokenizer or folder, needed=tokenizer is not None), name, commit or revision


def read_config(folder: Path, trust_remote_code: bool) -> Any:
    """Return the folder's configuration.

    Raises:
        CorruptModelError: its values are invalid.
        UnsupportedModelError: this transformers release does not know the model, or it needs remote code.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "trust_remote_code" in str(error):
            raise UnsupportedModelError(
                f"model {str(folder)!r}",
                found="modelling code of its own",
                expected="a model that transformers knows",
                fix="If you trust that code, pass trust_remote_code=True.",
            ) from error
        if "model type" in str(error) or "model_type" in str(error):
            raise UnsupportedModelError(
                f"model {str(folder)!r}", found=text, expected="a model_type that the installed transformers knows"
            ) from error
        raise CorruptModelError(f"file {str(folder / 'config.json')!r}", found=text, expected="valid values") from error


def read_tokenizer(source: Any, *, needed: bool) -> Any:
    """Return the tokenizer of a folder or hub id, a tokenizer as it is, or None where there is none.

    Raises:
        CorruptModelError: its files cannot be read, or it is needed and absent.
    """
    if not isinstance(source, str | Path):
        return source
    folder = Path(source)
    if not needed and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:
        raise CorruptModelError(
            f"tokenizer {str(source)!r}",
            found=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            expected="tokenizer files as save_pretrained writes them",
        ) from error


def _take(model: Any, dtype: Any, device: Any, tokenizer: Any) -> Loaded:
    from transformers import PreTrainedModel

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
    return model, read_tokenizer(tokenizer, needed=tokenizer is not None), name, commit


def _indexed(device: torch.device) -> str:
    return f"cuda:{torch.cuda.current_device() if device.index is None else device.index}"


def _not_as_asked(what: str, found: object, asked: object) -> DeviceError:
    return DeviceError(
        f"{what} of the loaded model",
        found=found,
        expected=f"{asked}, as asked",
        fix="A loaded model is never moved or cast; call model.to(...) yourself first.",
    )


def _model_class(config: Any, trust_remote_code: bool) -> Any:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    if trust_remote_code and getattr(config, "auto_map", None):
        return transformers.AutoModelForCausalLM
    for name in getattr(config, "architectures", None) or []:
        if hasattr(transformers, name):
            return getattr(transformers, name)
    if config.model_type in CAUSAL:
        return transformers.AutoModelForCausalLM
    return transformers.AutoModelForMaskedLM if config.model_type in MASKED else transformers.AutoModel


def _read(kind: Any, folder: Path, config: Any, dtype: torch.dtype, device_map: Any, code: bool) -> Any:
    options: dict[str, Any] = {"trust_remote_code": True} if code else {}
    try:
        loaded, report = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
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
            found=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
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
    return loaded


def _random(kind: Any, config: Any, dtype: torch.dtype, device: torch.device) -> Any:
    build = kind.from_config if kind.__name__.startswith("AutoModel") else kind._from_config
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        return build(config, dtype=dtype).to(device)
