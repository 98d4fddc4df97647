"""What is known of a transformers model before its weights are: configuration, class, tokenizer, dtype, device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.errors import CorruptModelError, ModelError
from ._config import first_line, model_class, read_config
from ._options import read_device, read_dtype
from ._quiet import quiet_transformers
from ._refusals import refuse_by_name, text_config
from ._source import Source, find_source

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, eq=False)
class Shape:
    """A model before its weights are read or made.

    Attributes:
        source: where it comes from.
        config: its configuration.
        kind: its transformers class.
        tokenizer: its tokenizer, or None.
        dtype: of its weights.
        device: where they go.
        code: whether the model's own code may run.
    """

    source: Source
    config: Any
    kind: Any
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device
    code: bool = False


def read_shape(
    model: str | Path | None = None,
    *,
    config: Any = None,
    dtype: Any = "auto",
    device: Any = None,
    revision: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    random_weights: bool = False,
) -> Shape:
    """Return what configuration and tokenizer say; no weights are read or made. Arguments as in `attnscope.load`.

    Raises:
        ModelError: as `find_source`; or the tokenizer given knows more tokens than the model.
        CorruptModelError: the configuration or the tokenizer cannot be read.
        UnsupportedModelError: the model's attention cannot be expressed, or transformers does not know it.
        DeviceError: unknown device or dtype.

    Example:
        >>> read_shape(config="gpt2", random_weights=True, device="cpu").kind.__name__
        'GPT2LMHeadModel'
    """
    chosen = read_device(device)
    read_dtype(dtype, chosen)  # fails before any download
    source = find_source(
        model, config, random_weights=random_weights, revision=revision, trust_remote_code=trust_remote_code
    )
    with quiet_transformers():
        found = read_config(source, trust_remote_code)
        refuse_by_name(found)
        words = read_tokenizer(source.folder if tokenizer is None else tokenizer, needed=tokenizer is not None)
        if random_weights and tokenizer is not None:
            _check_vocabulary(words, getattr(text_config(found), "vocab_size", None), source.name)
        kind = model_class(found, trust_remote_code)
        wanted = read_dtype(dtype, chosen, getattr(found, "dtype", None))
    return Shape(source, found, kind, words, wanted, chosen, trust_remote_code)


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
            found=first_line(error),
            expected="tokenizer files as save_pretrained writes them",
        ) from error


def _check_vocabulary(tokenizer: Any, vocab_size: int | None, name: str) -> None:
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise ModelError(
            f"tokenizer {type(tokenizer).__name__} for {name}",
            found=f"{len(tokenizer):,} tokens",
            expected=f"at most the model's vocabulary of {vocab_size:,}",
            fix="Use a smaller tokenizer, or none.",
        )
