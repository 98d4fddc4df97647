"""Which tokens a forward runs, read from what the model's body is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.batch import Batch
from ..edits._tokens import Tokens, count
from ..models._inputs import body_of

if TYPE_CHECKING:
    from ..models._base import Scope


@contextmanager
def running_tokens(scope: Scope, batch: Batch | None) -> Iterator[Callable[[Tensor], Tokens]]:
    """Give a function from the residual stream `[B, T, M]` of the running forward to its tokens.

    Padding is read from the attention mask, and what went before from the key/value cache, so that a token has the
    same position in one forward, in decode steps and in `generate`.
    """
    prompts = None if batch is None else batch.prompts
    given: dict[str, Any] = {}

    def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        given.clear()
        given.update({**bound, **bound.get("kwargs", {})})
        cache = next((given[name] for name in ("past_key_values", "cache") if given.get(name) is not None), None)
        given["offset"] = 0 if cache is None else int(cache.get_seq_length())  # layers are about to add to it

    def tokens(x: Tensor) -> Tokens:
        if given:
            return Tokens(_positions(given, x), prompts)
        known = batch is not None and batch.valid.shape == x.shape[:2]
        return Tokens(count(batch.valid).to(x.device) if batch is not None and known else None, prompts)

    if not hasattr(scope.model, "base_model"):
        yield tokens
        return
    handle = body_of(scope.model).register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield tokens
    finally:
        handle.remove()


def _positions(given: dict[str, Any], x: Tensor) -> Tensor | None:
    mask, offset, (b, t) = given.get("attention_mask"), given["offset"], x.shape[:2]
    if mask is None:
        return torch.arange(offset, offset + t, device=x.device).expand(b, t)
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.shape[1] < offset + t:
        return None
    return count(mask[:, : offset + t].bool())[:, offset:].expand(b, t).to(x.device)
