"""LycheeDecode's gates: whether a KV head reads all keys or those that the layer below chose (2602.04541)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Tap

from ...core.errors import TaskError
from ...core.model_info import ModelInfo
from .branches import check, full, logits, visible, weighted
from .duo_attention import Per, check_sizes, gate_shape, mixed
from .kuma import LEAST, MOST, kept, sample, uniform


@dataclass(frozen=True)
class HardKuma:
    """Gates z drawn from HardKuma(a, b): z·full + (1 − z)·sparse where answers are predicted; a = b = 1 at the start.

    The prompt is read in full, as in a prefill; the positions that predict answer tokens are decoded with gates. A
    sparse head sees the keys with the largest logits of the same query head one attention layer below, and sink and
    recent keys. The first attention layer has nothing below and stays full; its gates count in the density.

    Loss: distillation + λ·relu(density − target), density = mean P(z ≠ 0). As in the authors' code, λ multiplies a
    moving average of the excess (the gradient is that of the excess itself) and grows by exp(rate · average) a step.

    Attributes:
        steps: a prompt each; 3,000 in the paper.
        sink_tokens: 128 in the paper.
        recent_tokens: 256 in the paper; counted from each query, whereas the code counts from the end of the text.
        share: of the visible keys that the layer below passes on.
        budget: `beside`: sink and recent keys come on top of that share; `within`: they are part of it, as in the code.
        target: density; 24 of 288 heads in the paper.
        learning_rate: at its highest, see `train.rate_at`.
        constraint: λ at the start.
        constraint_rate: how fast λ grows.
        per: what has a gate; the paper's unit is the KV head.
        seed: of the order of prompts and of the draws.

    Raises:
        TaskError: sizes below 1 (sinks below 0), a share or target outside 0..1, or an unknown unit or budget.

    Example:
        >>> HardKuma(target=0.25).constraint
        2.0
    """

    name: ClassVar[str] = "hardkuma"
    source: ClassVar[str] = "2602.04541"
    curves: ClassVar[tuple[str, ...]] = ("density", "constraint")
    steps: int = 300
    sink_tokens: int = 4
    recent_tokens: int = 64
    share: float = 0.3
    budget: Literal["beside", "within"] = "beside"
    target: float = 1 / 12
    learning_rate: float = 0.01
    constraint: float = 2.0
    constraint_rate: float = 0.001
    per: Per = "kv_head"
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(self.name, self.steps, self.sink_tokens, self.recent_tokens, self.per)
        if not (0 <= self.share <= 1 and 0 <= self.target <= 1):
            raise TaskError("hardkuma gates", found=f"share {self.share}, target {self.target}", expected="0 to 1")
        if self.budget not in ("beside", "within"):
            raise TaskError("budget of sparse heads", found=repr(self.budget), expected="'beside' or 'within'")

    def initial(self, info: ModelInfo) -> dict[str, Tensor]:
        """Return a = b = 1, where z is 0 and 1 with probability 1/12 each and even between."""
        return {name: torch.ones(gate_shape(info, self.per)) for name in ("a", "b")}

    def tap(self, info: ModelInfo, gates: dict[str, Tensor], step: int, positions: list[int]) -> Tap:
        """Return the tap that mixes full and sparse attention where answers are predicted."""
        a, b = gates["a"], gates["b"]
        draw = sample(a, b, uniform(tuple(a.shape), self.seed, step).to(a))
        return self.mixing(info, draw, positions)

    def mixing(self, info: ModelInfo, draw: Tensor, positions: list[int]) -> Tap:
        """Return the tap for one draw z `[L, G or H]`."""
        below: list[Tensor] = []

        def mix(call: AttentionCall) -> Tensor:
            check(call)
            whole = full(call)
            queries = torch.tensor(positions, device=call.q.device)
            asked = call.q[:, :, queries]
            if below:
                seen = below.pop().to(call.q.device) & visible(call, queries, _keys(call))
                part = weighted(call, asked, call.k, call.v, seen)
                gate = draw[info.rows[call.layer]]
                whole = whole.index_copy(2, queries, mixed(gate, whole[:, :, queries], part))
            with torch.no_grad():
                below.append(self.chosen(call, queries, logits(call, asked, call.k)))
            return whole

        return mix

    def chosen(self, call: AttentionCall, queries: Tensor, found: Tensor) -> Tensor:
        """Return the keys that a layer passes on to the next.

        Args:
            call: the layer's inputs.
            queries: `[n]` positions.
            found: their logits `[B, H, n, T]`.

        Returns:
            `[B, H, n, T]` bool, the first `sink_tokens` and the last `recent_tokens` keys of each query included.
        """
        keys = _keys(call)
        distance = queries[:, None] - keys
        always = (distance >= 0) & ((distance < self.recent_tokens) | (keys < self.sink_tokens))
        ranked = found.masked_fill(distance < 0, -math.inf)
        if self.budget == "within":
            ranked = ranked.masked_fill(always, math.inf)
        rank = torch.argsort(ranked, dim=-1, descending=True, stable=True).argsort(-1)
        count = (self.share * (queries + 1)).long()
        return (rank < count[:, None]) | always

    def penalty(self, gates: dict[str, Tensor], scalars: dict[str, float]) -> tuple[Tensor, dict[str, float]]:
        """Return λ·(density above target), and move λ."""
        density = kept(gates["a"], gates["b"]).mean()
        excess = (density - self.target).relu()
        average = 0.9 * scalars.get("excess", 0.0) + 0.1 * float(excess.detach())
        weight = scalars.get("constraint", self.constraint) * math.exp(self.constraint_rate * average)
        scalars["excess"], scalars["constraint"] = average, min(max(weight, 1e-12), 20.0)
        held = excess + (average - excess).detach()
        return scalars["constraint"] * held, {"density": float(density.detach()), "constraint": scalars["constraint"]}

    def clamp(self, gates: dict[str, Tensor]) -> None:
        """Keep a and b away from 0 and below 100."""
        for gate in gates.values():
            gate.clamp_(LEAST, MOST)


def _keys(call: AttentionCall) -> Tensor:
    return torch.arange(call.k.shape[2], device=call.k.device)
