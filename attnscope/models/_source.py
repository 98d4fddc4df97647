"""Where a model comes from: a folder, a hub id, or a configuration alone."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ModelError, ModelNotFoundError, UnknownNameError, UnsupportedModelError
from ..core.paths import data_path
from ._folder import check_config, read_json
from ._hub import local_folder


@dataclass(frozen=True)
class Source:
    """Where a model's parts are.

    Attributes:
        config: the configuration: a file, or a transformers PreTrainedConfig.
        folder: holds the weights and the tokenizer; None for a configuration alone.
        name: the model id of a report.
        commit: of a hub id.
    """

    config: Any
    folder: Path | None
    name: str
    commit: str | None = None


def find_source(
    model: str | Path | None,
    config: Any = None,
    *,
    random_weights: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Source:
    """Return where the model's configuration, weights and tokenizer are; nothing at all is the embedded model.

    Raises:
        ModelError: model and configuration exclude each other, or random weights were asked for without either.
        ModelNotFoundError: no such folder, hub id or configuration file.
        CorruptModelError: the configuration is no JSON object.
        UnknownNameError: no shape of this name is shipped.
    """
    if config is not None:
        _check_alone(model, config, random_weights, revision, trust_remote_code)
        return _from_config(config)
    if model is None and random_weights:
        raise ModelError(
            "random weights",
            found="neither a model nor a configuration",
            expected="the shape to fill with them",
            fix=f"Give a folder, or --config (config= in Python) with a file or one of {', '.join(shape_names())}.",
        )
    if model is None:
        folder, commit = data_path("pocket"), None
    else:
        folder, commit = local_folder(model, revision=revision, code=trust_remote_code, weights=not random_weights)
    return Source(check_config(folder), folder, "pocket" if model is None else str(model), commit)


def shape_names() -> list[str]:
    """Return the names of the configurations that attnscope ships.

    Example:
        >>> "llama-3.1-8b" in shape_names()
        True
    """
    return sorted(path.stem for path in data_path("shapes").glob("*.json"))


def _check_alone(model: Any, config: Any, random_weights: bool, revision: str | None, code: bool) -> None:
    if model is not None:
        raise ModelError(
            f"model {_named(model)} and configuration {_named(config)}",
            found="both",
            expected="one of them",
            fix="A folder has its own config.json; leave the other out.",
        )
    if not random_weights:
        raise ModelError(
            f"configuration {_named(config)}",
            found="a shape without weights",
            expected="random weights to be asked for",
            fix="Add --random-weights (random_weights=True in Python), or give a model folder.",
        )
    if revision is not None or code:
        raise ModelError(
            f"configuration {_named(config)}",
            found="a revision" if revision is not None else "trust_remote_code",
            expected="neither: both belong to a hub id or a folder",
            fix="Leave it out, or give the folder or hub id in place of the configuration.",
        )


def _from_config(config: Any) -> Source:
    if isinstance(config, str | Path):
        path = _config_file(config)
        read_json(path)
        return Source(path, None, str(config))
    from transformers import PreTrainedConfig

    if not isinstance(config, PreTrainedConfig):
        raise UnsupportedModelError(
            "configuration",
            found=f"a {type(config).__name__}",
            expected="a .json file, the name of a shipped shape or a transformers PreTrainedConfig",
        )
    return Source(config, None, config._name_or_path or type(config).__name__)


def _config_file(config: str | Path) -> Path:
    path = Path(config).expanduser()
    if path.suffix == ".json":
        if path.is_file():
            return path
        raise ModelNotFoundError(
            f"configuration {str(config)!r}",
            found="a folder" if path.is_dir() else "no such file",
            expected="a transformers config.json",
        )
    names = shape_names()
    if str(config) in names:
        return data_path(f"shapes/{config}.json")
    near = difflib.get_close_matches(str(config), names, n=2, cutoff=0.5)
    fix = f"Did you mean {' or '.join(near)}?" if near else None
    raise UnknownNameError(
        f"configuration {str(config)!r}",
        found="a folder" if path.is_dir() else "no shape of this name",
        expected=f"a file that ends in .json, or one of {', '.join(names)}",
        fix=f"Give {path / 'config.json'}, or the folder in place of --config." if path.is_dir() else fix,
    )


def _named(thing: Any) -> str:
    return repr(str(thing)) if isinstance(thing, str | Path) else type(thing).__name__
