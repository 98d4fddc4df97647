"""Read a transformers configuration and choose the class that it describes."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from ..core.errors import CorruptModelError, UnsupportedModelError
from ._source import Source


def read_config(source: Source, trust_remote_code: bool = False) -> Any:
    """Return the configuration of a source, a copy where it was given as an object.

    Raises:
        CorruptModelError: its values are invalid.
        UnsupportedModelError: this transformers release does not know the model, or it needs remote code.
    """
    from transformers import AutoConfig

    if not isinstance(source.config, Path):
        return deepcopy(source.config)
    try:
        return AutoConfig.from_pretrained(
            source.folder or source.config, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:
        text = first_line(error)
        if "trust_remote_code" in str(error):
            raise UnsupportedModelError(
                f"model {source.name!r}",
                found="modelling code of its own",
                expected="a model that transformers knows",
                fix="If you trust that code, pass trust_remote_code=True."
                if source.folder
                else "Give the folder or hub id that holds the code, not the configuration alone.",
            ) from error
        if "model type" in str(error) or "model_type" in str(error):
            raise UnsupportedModelError(
                f"model {source.name!r}", found=text, expected="a model_type that the installed transformers knows"
            ) from error
        raise CorruptModelError(f"file {str(source.config)!r}", found=text, expected="valid values") from error


def model_class(config: Any, trust_remote_code: bool = False) -> Any:
    """Return the transformers class of a configuration: the one it names, else the Auto class of its family."""
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


def first_line(error: Exception) -> str:
    """Return the first line of an error's message (two if the first one announces the second), or its class.

    Example:
        >>> first_line(ValueError("bad value\\nand more")), first_line(ValueError("bad:\\n  5")), first_line(KeyError())
        ('bad value', 'bad: 5', 'KeyError')
    """
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
