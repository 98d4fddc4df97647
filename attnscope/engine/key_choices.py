"""Ways to choose a query's keys without its whole logits: chunks of frequencies, recent keys, sinks, SnapKV's vote."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from attnscope_kernels import AttentionCall

STREAM_SINKS = 4
"""Keys from the start that StreamingLLM keeps (2309.17453)."""
OBSERVED, POOL = 32, 5
"""Last queries that vote, and keys whose votes are averaged (SnapKV, 2404.14469, its code's defaults)."""


@dataclass(frozen=True, eq=False)
class QueryRows:
    """Sampled queries of one prompt and one KV head, r query heads of D dimensions.

    Attributes:
        call: the layer's call.
        prompt: row of the batch.
        kv_head: G index.
        at: `[S]` positions.
        visible: `[S]` keys that each sees.
    """

    call: AttentionCall
    prompt: int
    kv_head: int
    at: Tensor
    visible: Tensor

    @property
    def heads(self) -> slice:
        """The query heads of the group."""
        r = self.call.group_size
        return slice(self.kv_head * r, (self.kv_head + 1) * r)

    @cached_property
    def q(self) -> Tensor:
        """`[r, S, D]` in the dtype of arithmetic."""
        return self._wide(self.call.q[self.prompt, self.heads][:, self.at])

    @cached_property
    def k(self) -> Tensor:
        """`[T, D]` in the dtype of arithmetic."""
        return self._wide(self.call.k[self.prompt, self.kv_head])

    @cached_property
    def hidden(self) -> Tensor:
        """`[S, T]` True where a key is not seen."""
        return self._hidden(self.at)

    def _hidden(self, at: Tensor) -> Tensor:
        keys = torch.arange(self.call.k.shape[2], device=at.device)
        distance = at.unsqueeze(-1) - keys
        hidden = distance < 0
        return hidden if self.call.window is None else hidden | (distance >= self.call.window)

    def _wide(self, x: Tensor) -> Tensor:
        return x if x.dtype == torch.float64 else x.float()

    def logits(self, q: Tensor | None = None) -> Tensor:
        """Return q·k `[r, S, T]`, -inf where a key is not seen."""
        found = (self.q if q is None else q) @ self.k.T
        return found.masked_fill_(self.hidden, -torch.inf)

    def by_chunks(self, chosen: Tensor, most: int) -> Tensor:
        """Return the `most` keys `[r, S, most]` of largest partial logit, summed over `chosen` chunks `[r, N]`."""
        half = self.q.shape[-1] // 2
        mask = torch.zeros(len(chosen), half, dtype=self.q.dtype, device=self.q.device).scatter_(1, chosen, 1.0)
        return self.logits(self.q * mask.repeat(1, 2).unsqueeze(1)).topk(most, dim=-1).indices

    def recent(self, most: int) -> Tensor:
        """Return the last `most` keys `[1, S, most]`, the query's own first."""
        return (self.at[:, None] - torch.arange(most, device=self.at.device)).clamp(min=0).unsqueeze(0)

    def stream(self, most: int) -> Tensor:
        """Return the first four keys that the query sees, then recent ones, `[1, S, most]`."""
        first = (self.at - self.visible + 1)[:, None] + torch.arange(STREAM_SINKS, device=self.at.device)
        return torch.cat([first.unsqueeze(0), self.recent(most)], -1)[..., :most]

    def votes(self) -> Tensor:
        """Return the attention `[r, S, T]` that the 32 queries before each query pay, averaged over 5 keys around."""
        observed = self.at[:, None] - torch.arange(OBSERVED, 0, -1, device=self.at.device)
        exists = observed >= 0
        observed = observed.clamp(min=0)
        q = self._wide(self.call.q[self.prompt, self.heads][:, observed])
        logits = (q @ self.k.T).mul_(self.call.scale)
        if self.call.softcap is not None:
            logits = self.call.softcap * torch.tanh(logits / self.call.softcap)
        logits.masked_fill_(self._hidden(observed), -torch.inf)
        total = logits.logsumexp(-1, keepdim=True)
        if self.call.sink_logits is not None:
            sinks = self._wide(self.call.sink_logits[self.heads]).view(-1, 1, 1, 1)
            total = torch.logaddexp(total, sinks)
        mass = (logits - total).exp_().masked_fill_(~exists[None, :, :, None], 0.0).sum(2)
        return avg_pool1d(mass, POOL, stride=1, padding=POOL // 2)

    def by_votes(self, votes: Tensor, budget: int) -> Tensor:
        """Return SnapKV's keys `[r, S, budget]`: its last keys, 32 or half the budget, and those of most votes."""
        last = min(OBSERVED, budget // 2)
        chosen = votes.masked_fill(self.hidden, -torch.inf)
        recent = self.recent(last).expand(len(chosen), -1, -1)
        return chosen.scatter(-1, recent, torch.inf).topk(budget, dim=-1).indices
