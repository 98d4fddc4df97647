"""What a key/value cache under roles holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import TaskError

if TYPE_CHECKING:
    from .roles import KVRoles


def cache_tokens(roles: KVRoles, tokens: int) -> int:
    """Return the tokens that all KV heads keep together: all of them where full, sink and window where streaming.

    Args:
        tokens: seen so far.

    Raises:
        TaskError: a negative number of tokens.

    Example:
        >>> import numpy as np
        >>> from .roles import KVRoles
        >>> cache_tokens(KVRoles(np.array([[True, False]]), sink_tokens=4, recent_tokens=64), 1000)
        1068
    """
    if tokens < 0:
        raise TaskError("tokens in a cache", found=tokens, expected="0 or more")
    full = int(roles.full.sum())
    streaming = roles.full.size - full
    return full * tokens + streaming * min(tokens, roles.sink_tokens + roles.recent_tokens)


def cache_bytes(
    roles: KVRoles,
    tokens: int,
    head_dim: int,
    value_dim: int | None = None,
    bytes_per_number: int = 2,
    prompts: int = 1,
) -> int:
    """Return the bytes of keys and values that a cache keeps under roles.

    Args:
        tokens: seen so far, of each prompt.
        head_dim: numbers a key.
        value_dim: numbers a value; None means as many as a key.
        bytes_per_number: 2 in bf16.
        prompts: decoded at once.

    Raises:
        TaskError: a negative number of tokens.

    Example:
        >>> import numpy as np
        >>> from .roles import KVRoles
        >>> cache_bytes(KVRoles(np.array([[True, True]])), tokens=1000, head_dim=64)
        512000
    """
    numbers = head_dim + (head_dim if value_dim is None else value_dim)
    return cache_tokens(roles, tokens) * numbers * bytes_per_number * prompts
