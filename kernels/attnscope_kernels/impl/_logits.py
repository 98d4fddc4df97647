"""The logits of one block of queries, with everything invisible at a finite HIDDEN (finite, so that 0 · HIDDEN = 0)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import AttentionCall
from ._plan import Block, Part

HIDDEN = -1e30


class Operands:
    """q, k and v of a call, ready for batched matrix products in the statistics dtype.

    Attributes:
        k: `[B, G, Tk, D]` in the statistics dtype.
        v: `[B, G, Tk, Dv]`, likewise.
        hidden_keys: `[B, Tk]` bool, or None where every key is valid.
    """

    def __init__(self, call: AttentionCall, dtype: torch.dtype) -> None:
        self.call = call
        self.dtype = dtype
        self.q = call.q.detach().unflatten(1, (call.k.shape[1], call.group_size))
        self.k = call.k.detach().to(dtype).contiguous()
        self.v = call.v.detach().to(dtype).contiguous()
        self.hidden_keys = None
        if call.key_valid is not None and not bool(call.key_valid.all()):
            self.hidden_keys = ~call.key_valid
        self.bias = None
        if call.key_bias is not None:
            self.bias = call.key_bias.detach().to(dtype).clamp(min=HIDDEN).expand(call.q.shape[0], -1, -1)
        self.factor = None if call.logit_scale is None else call.logit_scale.detach().to(dtype)
        self.knocked_queries = [knockout.queries.any(0).tolist() for knockout in call.knockouts]

    @property
    def rows_may_be_blind(self) -> bool:
        """Whether some query may see no key at all."""
        return (
            self.hidden_keys is not None
            or bool(self.call.knockouts)
            or self.bias is not None
            or (self.call.window is not None and not self.call.causal)
        )

    def logits(self, part: Part, block: Block, out: Tensor) -> None:
        """Write the masked logits of a part's heads into `out` `[b, h, queries, keys]` (contiguous)."""
        call = self.call
        b, n = out.shape[0], out.shape[3]
        q = self.q[part.batch, part.groups, part.members, block.queries].to(self.dtype)
        q = q * (call.scale if call.softcap is None else call.scale / call.softcap)
        g = q.shape[1]
        k = self.k[part.batch, part.groups, block.low : block.high].reshape(b * g, n, -1)
        torch.bmm(q.reshape(b * g, -1, q.shape[-1]), k.transpose(1, 2), out=out.view(b * g, -1, n))
        if self.factor is not None:
            out.mul_(self.factor[part.heads, None, None])
        if call.softcap is not None:
            out.tanh_().mul_(call.softcap)
        if self.bias is not None:
            out.add_(self.bias[part.batch, part.heads, None, block.low : block.high])
        self._hide(part, block, out)

    def mix(self, part: Part, block: Block, weights: Tensor) -> Tensor:
        """Return weights `[b, h, queries, keys]` times v, `[b, h, queries, Dv]`."""
        b, h, rows, n = weights.shape
        v = self.v[part.batch, part.groups, block.low : block.high]
        g = v.shape[1]
        z = torch.bmm(weights.view(b * g, -1, n), v.reshape(b * g, n, -1))
        return z.view(b, h, rows, -1)

    def _hide(self, part: Part, block: Block, out: Tensor) -> None:
        call, low, high = self.call, block.low, block.high
        rows = out.shape[2]
        end = block.start + rows - 1
        i = torch.arange(block.start, end + 1, device=out.device).unsqueeze(-1)
        j = torch.arange(low, high, device=out.device)

        def hide(first: int, stop: int, hidden: Tensor) -> None:
            out[..., first - low : stop - low].masked_fill_(hidden, HIDDEN)

        if call.causal and block.start + 1 < high:
            first = max(low, block.start + 1)
            hide(first, high, j[first - low :] > i)
        if call.window is not None:
            stop = min(high, end + 1 - call.window)
            if stop > low:
                hide(low, stop, j[: stop - low] <= i - call.window)
            first = max(low, block.start + call.window)
            if not call.causal and first < high:
                hide(first, high, j[first - low :] >= i + call.window)
        if call.segments is not None:
            own = call.segments[part.batch, None, block.start : end + 1, None]
            out.masked_fill_(own != call.segments[part.batch, None, None, low:high], HIDDEN)
        if self.hidden_keys is not None:
            out.masked_fill_(self.hidden_keys[part.batch, None, None, low:high], HIDDEN)
        for knockout, touched in zip(call.knockouts, self.knocked_queries, strict=True):
            if any(touched[block.queries]):
                queries = knockout.queries[part.batch, None, block.queries, None]
                keys = knockout.keys[part.batch, None, None, low:high]
                out.masked_fill_(knockout.heads[part.heads, None, None] & queries & keys, HIDDEN)
