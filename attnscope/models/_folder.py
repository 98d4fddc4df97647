"""Check a model's folder before anything is loaded: what is there, whether it is whole, and how large it is."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from ..core.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_config(folder: Path) -> Path:
    """Return the config.json of a local model folder.

    Raises:
        ModelNotFoundError: the folder is missing, or holds no config.json.
        CorruptModelError: it is no JSON object.
    """
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"model {str(folder)!r}",
            found="a file" if folder.exists() else "no such folder",
            expected="a folder with config.json and safetensors weights",
            fix="Give the folder itself." if folder.exists() else "Check the path, or give a hub id: Qwen/Qwen3-0.6B.",
        )
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(
            f"model folder {str(folder)!r}",
            found=f"no config.json among {sorted(path.name for path in folder.iterdir())[:8]}",
            expected="config.json beside the weights, as save_pretrained writes them",
        )
    read_json(folder / "config.json")
    return folder / "config.json"


def check_weights(folder: Path) -> int:
    """Return the number of parameters in a local model folder.

    Raises:
        ModelNotFoundError: it holds no weights.
        UnsupportedModelError: its weights are pickled only; they are never opened.
        CorruptModelError: a file is truncated or cannot be parsed; the message names it.
    """
    files = weight_files(folder)
    if files:
        return sum(count_parameters(path) for path in files)
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise UnsupportedModelError(
            f"model folder {str(folder)!r}",
            found=f"pickled weights only: {', '.join(pickles[:4])}",
            expected="*.safetensors",
            fix="Pickles can run code when opened, so attnscope never opens them; convert them to safetensors first.",
        )
    raise ModelNotFoundError(
        f"model folder {str(folder)!r}",
        found="no weights",
        expected="*.safetensors",
        fix="Copy the weights, or ask for random ones with --random-weights (random_weights=True in Python).",
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: those of its index, or all.

    Raises:
        CorruptModelError: a file that the index names is missing.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CorruptModelError(
            f"model folder {str(folder)!r}",
            found=f"{', '.join(missing[:4])} missing",
            expected=f"the {len(names)} files that {index.name} names",
            fix="Download or copy them again.",
        )
    return [folder / name for name in names]


def count_parameters(path: Path) -> int:
    """Return the number of elements in one safetensors file, from its header alone.

    Raises:
        CorruptModelError: the header cannot be read, or the file's size is not what the header says.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
        elements = sum(math.prod(entry["shape"]) for entry in tensors)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise corrupt(path, error) from error
    if end != size:
        raise corrupt(path, f"{size} bytes where its header announces {end}")
    return elements


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file.

    Raises:
        CorruptModelError: it is not one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise corrupt(path, error) from error
    if not isinstance(value, dict):
        raise corrupt(path, f"a JSON {type(value).__name__}")
    return value


def corrupt(path: Path, found: object) -> CorruptModelError:
    """Return the error that names an unreadable file."""
    return CorruptModelError(
        f"file {str(path)!r}", found=found, expected="a whole, readable file", fix="Download or copy it again."
    )
