"""DuoAttention's gates: how much of each KV head's attention is full, how much sink and recent keys (2410.10819)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, Tap

from ...core.errors import TaskError
from ...core.model_info import ModelInfo
from .branches import full, streaming

Per = Literal["kv_head", "query_head"]


@dataclass(frozen=True)
class DuoAttention:
    """Gates α in 0..1, from 1: z = α·full + (1 − α)·(sink and recent keys), at every position of the prompt.

    Loss: Σ_answer mean_d (h_full − h)² / n_answer + regularisation · mean|α|. AdamW without weight decay; after each
    step α is clamped. The authors' code counts the question's tokens with the answer's.

    Attributes:
        steps: a prompt each; 2,000 in the paper.
        sink_tokens: first keys that streaming heads see; 128 in the paper.
        recent_tokens: last keys that they see, the query's own included; 256 in the paper.
        learning_rate: at its highest, see `train.rate_at`.
        regularisation: weight of mean|α|.
        per: what has a gate; the paper's unit is the KV head.
        seed: of the order of prompts.

    Raises:
        TaskError: sizes below 1 (sinks below 0), or an unknown unit.

    Example:
        >>> DuoAttention(steps=100).learning_rate
        0.02
    """

    name: ClassVar[str] = "duo_attention"
    source: ClassVar[str] = "2410.10819"
    curves: ClassVar[tuple[str, ...]] = ()
    steps: int = 200
    sink_tokens: int = 4
    recent_tokens: int = 64
    learning_rate: float = 0.02
    regularisation: float = 0.05
    per: Per = "kv_head"
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(self.name, self.steps, self.sink_tokens, self.recent_tokens, self.per)

    def initial(self, info: ModelInfo) -> dict[str, Tensor]:
        """Return gates that leave the model as it is."""
        return {"gate": torch.ones(gate_shape(info, self.per))}

    def tap(self, info: ModelInfo, gates: dict[str, Tensor], step: int, positions: list[int]) -> Tap:
        """Return the tap that mixes full and streaming attention."""

        def mix(call: AttentionCall) -> Tensor:
            whole = full(call)
            part = streaming(call, self.sink_tokens, self.recent_tokens)
            return mixed(gates["gate"][info.rows[call.layer]], whole, part)

        return mix

    def penalty(self, gates: dict[str, Tensor], scalars: dict[str, float]) -> tuple[Tensor, dict[str, float]]:
        """Return regularisation · mean|α|."""
        return self.regularisation * gates["gate"].abs().mean(), {}

    def clamp(self, gates: dict[str, Tensor]) -> None:
        """Keep α in 0..1."""
        gates["gate"].clamp_(0, 1)


def mixed(gate: Tensor, whole: Tensor, part: Tensor) -> Tensor:
    """Return gate·whole + (1 − gate)·part in the dtype of attention.

    Args:
        gate: `[G or H]` float32, one a group of query heads.
        whole: `[B, H, T, Dv]`.
        part: the same shape.
    """
    share = gate.to(whole.device).repeat_interleave(whole.shape[1] // len(gate))[:, None, None]
    return torch.lerp(part.to(torch.promote_types(part.dtype, share.dtype)), whole.to(share), share).to(whole.dtype)


def gate_shape(info: ModelInfo, per: Per) -> tuple[int, int]:
    """Return `(L, G)` or `(L, H)`."""
    return len(info.attention_layers), info.n_kv_heads if per == "kv_head" else info.n_heads


def check_sizes(name: str, steps: int, sinks: int, recent: int, per: str) -> None:
    """Refuse settings that no gate can be trained with.

    Raises:
        TaskError: see `DuoAttention`.
    """
    if steps < 1 or sinks < 0 or recent < 1:
        raise TaskError(
            f"{name} gates",
            found=f"{steps} steps, {sinks} sink and {recent} recent tokens",
            expected="at least 1 step, 0 sink tokens and 1 recent token",
        )
    if per not in ("kv_head", "query_head"):
        raise TaskError(f"unit of {name} gates", found=repr(per), expected="'kv_head' or 'query_head'")
