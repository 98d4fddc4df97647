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
    if not hasattr(scope.model, "base_model"):  # not a transformers model: batches alone run, and whole
        yield lambda x: Tokens(None if batch is None else count(batch.valid).to(x.device), prompts)
        return
    body = body_of(scope.model)
    forward = _Forward(inspect.signature(body.forward))
    handle = body.register_forward_pre_hook(forward.begin, with_kwargs=True)
    try:
        yield lambda x: Tokens(forward.positions(x), prompts)
    finally:
        handle.remove()


class _Forward:
    """What the running forward was given."""

    def __init__(self, signature: inspect.Signature) -> None:
        self.signature = signature
        self.mask: Any = None
        self.offset = 0
        self._positions: Tensor | None = None

    def begin(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the mask, and the tokens in the cache before layers add to it."""
        bound = self.signature.bind_partial(*args, **kwargs).arguments
        given = {**bound, **bound.get("kwargs", {})}
        cache = next((given[name] for name in ("past_key_values", "cache") if given.get(name) is not None), None)
        self.mask, self.offset = given.get("attention_mask"), 0 if cache is None else int(cache.get_seq_length())
        self._positions = None

    def positions(self, x: Tensor) -> Tensor | None:
        """Return the position of each token `[B, T]`; None where the mask does not say."""
        b, t = x.shape[:2]
        if self._positions is None or self._positions.shape != (b, t):
            self._positions = self._count(b, t, x.device)
        return None if self._positions is None else self._positions.to(x.device)

    def _count(self, b: int, t: int, device: torch.device) -> Tensor | None:
        end = self.offset + t
        if self.mask is None:
            return torch.arange(self.offset, end, device=device).expand(b, t)
        if not isinstance(self.mask, Tensor) or self.mask.dim() != 2 or self.mask.shape[1] < end:
            return None
        return count(self.mask[:, :end].bool())[:, self.offset :].expand(b, t)
