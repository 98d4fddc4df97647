"""A fresh KV cache for calls of a transformers model."""

from __future__ import annotations

import inspect
from typing import Any


def cache_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments with which calls of one generation share a KV cache, which they change in place.

    The argument is `cache` from transformers 5.24 on and `past_key_values` before.

    Args:
        model: a causal model of transformers.
    """
    from transformers import DynamicCache

    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: DynamicCache(config=model.config), "use_cache": True}
