"""What trained gates are trained on, with which settings, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .core.errors import TaskError
from .engine.gates.duo_attention import DuoAttention, Per
from .engine.gates.hardkuma import HardKuma
from .report_plan import ReportPlan

if TYPE_CHECKING:
    from .core.model_info import ModelInfo

BUDGETS = (0.25, 0.5)
"""Shares of KV heads that stay full when gates are checked."""
GATE = {"duo_attention": "duo_gate", "hardkuma": "hardkuma_mean"}


@dataclass(frozen=True)
class GatePlan:
    """What gates are trained, and on what.

    Attributes:
        method: `duo_attention` or `hardkuma`.
        steps: training steps; None takes 200 or 300.
        context: tokens a training prompt; None takes 512, or the model's context where that is shorter.
        needles: codes to remember in each.
        prompts: different training prompts; every one is seen once, then again in another order.
        sink_tokens: first keys that a streaming (sparse) head sees.
        recent_tokens: last keys that it sees; None takes an eighth of the prompt, 16 at least.
        learning_rate: None takes the method's.
        target: density of HardKuma gates.
        constraint: λ of HardKuma gates at the start; None takes the method's.
        per: what has a gate.
        checked: held-out needles on which accuracy is measured with the largest gates full; 0 for none.
        checked_tokens: length of those.
        draws: random choices beside them.
        seed: of everything random.

    Raises:
        TaskError: an unknown method, or fewer than 0 needles to check.
    """

    method: Literal["duo_attention", "hardkuma"] = "duo_attention"
    steps: int | None = None
    context: int | None = None
    needles: int = 5
    prompts: int = 24
    sink_tokens: int = 4
    recent_tokens: int | None = None
    learning_rate: float | None = None
    target: float = 1 / 12
    constraint: float | None = None
    per: Per = "kv_head"
    checked: int = 10
    checked_tokens: int = 1024
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in GATE:
            raise TaskError("method of gates", found=repr(self.method), expected=f"one of {', '.join(GATE)}")
        if self.checked < 0 or self.draws < 0:
            raise TaskError("check of gates", found=f"{self.checked} needles, {self.draws} draws", expected="0 or more")

    def length(self, info: ModelInfo) -> int:
        """Return tokens of a training prompt.

        Raises:
            TaskError: longer than the model's context.
        """
        return ReportPlan(context=self.context).context_for(info)

    def checked_length(self, info: ModelInfo) -> int:
        """Return tokens of a held-out prompt."""
        return min(self.checked_tokens, info.context_length or self.checked_tokens)

    def settings(self, info: ModelInfo) -> DuoAttention | HardKuma:
        """Return the method with this plan's settings."""
        recent = max(16, self.length(info) // 8) if self.recent_tokens is None else self.recent_tokens
        chosen: dict[str, Any] = {
            "steps": self.steps,
            "sink_tokens": self.sink_tokens,
            "recent_tokens": recent,
            "learning_rate": self.learning_rate,
            "per": self.per,
            "seed": self.seed,
        }
        if self.method == "hardkuma":
            chosen |= {"target": self.target, "constraint": self.constraint}
        given = {name: value for name, value in chosen.items() if value is not None}
        return HardKuma(**given) if self.method == "hardkuma" else DuoAttention(**given)


def cost(info: ModelInfo, plan: GatePlan) -> tuple[int, float]:
    """Return how many tokens a run sends through the model, and about how many multiply-adds that is.

    A training step counts twice, forward and back (weights get no gradient); attention counts twice, full and cut.

    Example:
        >>> import attnscope
        >>> cost(attnscope.load(backend="toy").info, GatePlan(steps=10, checked=0))[0]
        29696
    """
    length, steps = plan.length(info), plan.settings(info).steps
    checked = plan.checked * (1 + len(BUDGETS) * (1 + plan.draws))
    passes = [(2 * plan.prompts, length), (steps, length), (steps, length), (checked, plan.checked_length(info))]
    tokens = sum(count * size for count, size in passes)
    pairs = sum(count * size**2 / 2 for count, size in passes)
    attention = 4 * pairs * info.head_dim * info.n_heads * len(info.attention_layers)
    return (2 * plan.prompts + steps) * length + checked * plan.checked_length(info), (
        tokens * (info.n_parameters or 0) + attention
    )
