"""Edits' parameters as JSON data and back; tensors stand in it by shape, dtype and SHA-256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import TaskError
from ..core.ids import HeadId

_HEAD, _NUMBER = re.compile(r"L\d+H\d+"), re.compile(r"-?\d+")


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes, shape and dtype.

    Example:
        >>> digest(torch.zeros(2)) == digest(torch.zeros(2)) != digest(torch.zeros(1, 2))
        True
    """
    plain = tensor.detach().cpu().contiguous()
    made = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)} ".encode())
    made.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def parameters(thing: Any) -> dict[str, Any]:
    """Return the parameters of a dataclass as JSON data.

    Raises:
        TaskError: one of them is not plain data, a head, a tensor, or a mapping or sequence of these.
    """
    return {field.name: encode(getattr(thing, field.name)) for field in fields(thing) if field.init}


def encode(value: Any) -> Any:
    """Return one parameter as JSON data.

    Example:
        >>> encode({HeadId(1, 0): (0, 2)})
        {'L1H0': [0, 2]}
    """
    if isinstance(value, HeadId):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return {"tensor": digest(value), "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **parameters(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [encode(each) for each in value]
    raise TaskError("record of an edit", found=f"a {type(value).__name__}", expected="plain data, heads and tensors")


def decode(value: Any, tensors: Mapping[str, Tensor], types: Mapping[str, type]) -> Any:
    """Return a parameter from its JSON data.

    Args:
        value: what `encode` gave.
        tensors: SHA-256 → tensor.
        types: name → dataclass, for those that stand inside.

    Raises:
        TaskError: a tensor or a type is not there.

    Example:
        >>> decode({"L1H0": [0, 2]}, {}, {})
        {L1H0: (0, 2)}
    """
    if isinstance(value, str):
        return HeadId.parse(value) if _HEAD.fullmatch(value) else value
    if isinstance(value, list):
        return tuple(decode(each, tensors, types) for each in value)
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        if value["tensor"] not in tensors:
            raise TaskError(
                f"tensor {value['tensor'][:16]} of a recorded edit",
                found=f"{len(tensors)} others",
                expected=f"{value['dtype']} {value['shape']} with this SHA-256",
                fix="Measure it anew, or give the tensors that were saved with the record.",
            )
        return tensors[value["tensor"]]
    if "type" in value:
        if value["type"] not in types:
            raise TaskError("record of an edit", found=f"a {value['type']}", expected=f"one of {sorted(types)}")
        given = {key: decode(each, tensors, types) for key, each in value.items() if key != "type"}
        return types[value["type"]](**given)
    return {_key(key): decode(each, tensors, types) for key, each in value.items()}


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield every tensor of an edit's parameters."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.init:
                yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, tuple | list) and not isinstance(value, HeadId):
        for each in value:
            yield from tensors_in(each)


def _key(text: str) -> str | int | HeadId:
    if _HEAD.fullmatch(text):
        return HeadId.parse(text)
    return int(text) if _NUMBER.fullmatch(text) else text
