"""Attention of many variants of a prompt's end to its beginning, whose keys and values they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Want, attend

from ..forward import forward

if TYPE_CHECKING:
    from ...models._base import Scope
    from .chunks import Chunk

LONG = 256
"""Tokens from which on a beginning is read once for all variants, not copied to each."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """Keys and values of a prompt's first tokens, in every layer.

    Attributes:
        tokens: how many.
        keys: layer → `[B, G, tokens or more, D]`.
        values: layer → `[B, G, tokens or more, Dv]`.
    """

    tokens: int
    keys: Mapping[int, Tensor] = field(repr=False)
    values: Mapping[int, Tensor] = field(repr=False)

    def first(self, tokens: int) -> Beginning:
        """Return the keys and values of fewer tokens."""
        return Beginning(tokens, self.keys, self.values)

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return one layer's keys and values."""
        return self.keys[layer][:, :, : self.tokens], self.values[layer][:, :, : self.tokens]


def beginning(scope: Scope, chunk: Chunk, tokens: int, implementation: str = "auto") -> Beginning:
    """Run the first tokens of every prompt once and keep what later queries read of them."""
    keys: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}

    def listen(call: AttentionCall, _result: object) -> None:
        keys[call.layer], values[call.layer] = call.k, call.v

    batch = chunk.batch(chunk.ids[:, :tokens])
    with forward(scope, batch, implementation=implementation, listen=listen):
        scope.run(batch)
    return Beginning(tokens, keys, values)


def whole(call: AttentionCall, before: Beginning | None, *, reachable: bool = False) -> AttentionCall:
    """Return a call of `V·B` rows with the beginning's keys in front of its own.

    Args:
        call: rows in the order variant, prompt.
        before: of the B prompts.
        reachable: leave out keys that no query sees through its window.
    """
    if before is None or not before.tokens:
        return call
    keys, values = before.of(call.layer)
    low = max(0, before.tokens - call.window + 1) if reachable and call.window is not None else 0
    variants = call.q.shape[0] // keys.shape[0]
    keys, values = keys[:, :, low:], values[:, :, low:]
    if variants > 1:
        keys, values = (x.repeat(variants, 1, 1, 1) for x in (keys, values))
    return call.replace(k=torch.cat([keys, call.k], 2), v=torch.cat([values, call.v], 2), q_offset=None)


def attend_after(call: AttentionCall, before: Beginning | None, implementation: str = "auto") -> Tensor:
    """Return z `[V·B, H, n, Dv]` of queries that see the beginning and their own earlier tokens.

    A long beginning is read once for all variants of a prompt: their queries stand beside each other in one call, and
    the two parts of each softmax are put together by their denominators.
    """
    short = before is None or before.tokens < LONG
    if short or (call.window is not None and call.window < before.tokens + call.q.shape[2]):  # type: ignore[union-attr]
        return _output(whole(call, before, reachable=True), implementation)
    assert before is not None
    keys, values = before.of(call.layer)
    b, (rows, h, n, d) = len(keys), call.q.shape
    variants = rows // b
    q = call.q.view(variants, b, h, n, d).permute(1, 2, 0, 3, 4).reshape(b, h, variants * n, d)
    early = call.replace(q=q, k=keys, v=values, causal=False, window=None, sink_logits=None, q_offset=0)
    (z_early, lse_early), (z, lse) = _parts(early, implementation), _parts(call.replace(window=None), implementation)
    z_early = z_early.view(b, h, variants, n, -1).permute(2, 0, 1, 3, 4).reshape(z.shape)
    lse_early = lse_early.view(b, h, variants, n).permute(2, 0, 1, 3).reshape(lse.shape)
    share = (lse_early - torch.logaddexp(lse_early, lse)).exp()[..., None]
    return (z_early.to(share.dtype) * share + z.to(share.dtype) * (1 - share)).to(z.dtype)


def _parts(call: AttentionCall, implementation: str) -> tuple[Tensor, Tensor]:
    result = attend(call, Want(lse=True), implementation)
    assert result.output is not None
    assert result.lse is not None
    return result.output, result.lse


def _output(call: AttentionCall, implementation: str) -> Tensor:
    output = attend(call, None, implementation).output
    assert output is not None
    return output
