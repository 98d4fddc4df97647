"""The reference sparse decoder: transformers' own `generate` and key/value cache, with streaming heads at the tap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..core.errors import TaskError
from ..engine.edited import edited
from ..engine.prefix import cache_argument, new_cache

if TYPE_CHECKING:
    from ..models._base import Scope
    from .roles import KVRoles

Prefill = Literal["dense", "streaming"]
"""What streaming heads do while the prompt is read: attend to all of it (`dense`), or stream as well."""


class StreamingDecoder:
    """Decodes with a model of which some KV heads stream; a reference for correctness, not for speed.

    The cache holds every key: what streaming heads may not see is hidden, not dropped (`decoding.memory` says what a
    cache that drops it would hold). DuoAttention (2410.10819) streams in the prefill too; kvpress' press of that name
    reads the prompt densely and hides keys afterwards.

    Args:
        scope: a loaded transformers model.
        roles: of this model.
        prefill: `streaming` or `dense`.
        implementation: kernel implementation.

    Raises:
        UnknownHeadError: the roles are of a model of another shape.
        TaskError: an unknown prefill.

    Example:
        >>> import attnscope, numpy as np, torch
        >>> from attnscope.decoding.roles import KVRoles
        >>> scope = attnscope.load(device="cpu")
        >>> roles = KVRoles(np.zeros((8, 4), dtype=bool), sink_tokens=1, recent_tokens=2)
        >>> StreamingDecoder(scope, roles).generate(torch.tensor([[0, 5, 7, 9]]), max_new_tokens=2).shape
        torch.Size([1, 6])
    """

    def __init__(
        self, scope: Scope, roles: KVRoles, prefill: Prefill = "streaming", implementation: str = "auto"
    ) -> None:
        if prefill not in ("dense", "streaming"):
            raise TaskError("prefill", found=repr(prefill), expected="'dense' or 'streaming'")
        self.scope, self.roles, self.prefill, self.implementation = scope, roles, prefill, implementation
        self.edits = roles.edits(scope.info)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Let the streaming heads stream in your own calls of `scope.model(...)` and `scope.model.generate(...)`.

        Raises:
            TapError: something is attached to the model already.
        """
        with edited(self.scope, self.edits, implementation=self.implementation):
            yield

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        dense_tokens: int | None = None,
        **options: Any,
    ) -> Tensor:
        """Return `[B, T + new]` ids, greedy unless options say otherwise.

        Args:
            input_ids: `[B, T]`, padded on the left where prompts differ in length.
            attention_mask: `[B, T]`, 0 on padding; None where nothing is.
            dense_tokens: columns that a dense prefill reads, the padding among them; None means all but the last, so
                that the first new token is decoded sparsely already.
            options: of transformers' `generate`.

        Raises:
            TaskError: `dense_tokens` leaves nothing to decode from, or was given to a streaming prefill.
            TapError: something is attached to the model already.
        """
        options = {"do_sample": False, "use_cache": True} | options
        ids = input_ids.to(self.scope.device)
        mask = torch.ones_like(ids) if attention_mask is None else attention_mask.to(ids.device)
        model: Any = self.scope.model
        if self.prefill == "dense":
            options |= self._read(ids, mask, ids.shape[1] - 1 if dense_tokens is None else dense_tokens)
        elif dense_tokens is not None:
            raise TaskError("a streaming prefill", found=f"{dense_tokens} dense tokens", expected="none")
        with torch.no_grad(), self.attached():
            made: Tensor = model.generate(ids, attention_mask=mask, **options)
        return made

    def _read(self, ids: Tensor, mask: Tensor, tokens: int) -> dict[str, Any]:
        """Return the cache of the first columns as an argument of `generate`."""
        if not 0 <= tokens < ids.shape[1]:
            raise TaskError("dense prefill", found=f"{tokens} tokens", expected=f"0 to {ids.shape[1] - 1}")
        argument = cache_argument(self.scope.model)
        cache = new_cache()
        if tokens:
            options: dict[str, Any] = {argument: cache}
            if not bool(mask.all()):
                positions = (mask.long().cumsum(1) - 1).clamp(min=0)
                options |= {"attention_mask": mask[:, :tokens], "position_ids": positions[:, :tokens]}
            with torch.no_grad():
                self.scope.model(input_ids=ids[:, :tokens], use_cache=True, **options)
        return {argument: cache}
