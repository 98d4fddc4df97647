"""One beginning, many continuations: a prompt's key/value cache is computed once and read under different edits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import TaskError, UnsupportedModelError
from ..models._inputs import body_of
from .edited import edited

if TYPE_CHECKING:
    from ..edits._base import Edit
    from ..models._base import Scope


class Prefix:
    """The key/value cache of a prompt's first tokens; continuations leave it as it is.

    Args:
        scope: a loaded transformers model.
        ids: the first tokens, at least one.
        edits: that act on these tokens; without any, the model's own attention computes them.
        implementation: kernel implementation under edits.

    Raises:
        TaskError: no tokens.
        UnsupportedModelError: the model takes no key/value cache.

    Example:
        >>> import attnscope
        >>> Prefix(attnscope.load(device="cpu"), [0, 5, 7]).logits([9, 11]).shape
        torch.Size([2, 4096])
    """

    def __init__(
        self, scope: Scope, ids: Sequence[int], edits: Sequence[Edit] = (), implementation: str = "auto"
    ) -> None:
        if not ids:
            raise TaskError("beginning of a prompt", found="no tokens", expected="at least one")
        self.scope, self.tokens = scope, len(ids)
        self._argument = cache_argument(scope.model)
        self._cache = new_cache()
        attached: AbstractContextManager[None] = nullcontext()
        if edits:
            attached = edited(scope, edits, implementation=implementation)
        with torch.no_grad(), attached:
            self._forward(body_of(scope.model), ids, self._cache)

    def logits(self, ids: Sequence[int], edits: Sequence[Edit] = (), implementation: str = "auto") -> Tensor:
        """Return next-token logits `[n, vocabulary]` of n tokens that follow, with edits acting on these alone.

        Raises:
            TaskError: no tokens.
            TapError: something is attached to the model already.
        """
        if not ids:
            raise TaskError("continuation of a prompt", found="no tokens", expected="at least one")
        with torch.no_grad(), edited(self.scope, edits, implementation=implementation):
            logits: Tensor = self._forward(self.scope.model, ids, self.cache()).logits[0]
        return logits

    def cache(self) -> Any:
        """Return a copy of the cache, to decode on from."""
        return deepcopy(self._cache)

    def _forward(self, model: Any, ids: Sequence[int], cache: Any) -> Any:
        tokens = torch.tensor([list(ids)], device=self.scope.device)
        return model(input_ids=tokens, use_cache=True, **{self._argument: cache})


def new_cache() -> Any:
    """Return an empty transformers cache that drops nothing, also where layers have a sliding window."""
    from transformers import DynamicCache

    return DynamicCache()


def cache_argument(model: Any) -> str:
    """Return what a model calls its key/value cache: `cache`, or `past_key_values` before transformers 5.24.

    Raises:
        UnsupportedModelError: it takes none.
    """
    taken = inspect.signature(model.forward).parameters
    for name in ("cache", "past_key_values"):
        if name in taken:
            return name
    raise UnsupportedModelError(
        f"model {type(model).__name__}",
        found="no argument for a key/value cache",
        expected="a causal transformers model",
        fix="Use the backend 'hf'.",
    )
