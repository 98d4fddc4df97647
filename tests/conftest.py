"""What several tests share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["COLUMNS"] = "300"  # rich reads it when a console is made; test workers set 80

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton

workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, min(2, (os.cpu_count() or 1) // workers)))  # more threads than cores wait for each other

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def planted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small planted model on disk, as any transformers model."""
    from attnscope.testbed.planted import random_spec, save

    folder = tmp_path_factory.mktemp("models") / "planted"
    save(random_spec(0), folder)
    return folder


@pytest.fixture(scope="session")
def planted_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text in the planted model's words."""
    import random

    rng = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(f"w{rng.randrange(100)}" for _ in range(6000)))
    return path


@pytest.fixture
def cache_argument() -> Callable[[Any], str]:
    """What a model calls its KV cache: `cache`, or `past_key_values` before transformers 5.24."""
    return lambda model: "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
