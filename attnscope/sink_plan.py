"""What a sink report measures, on which prompts, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .core.model_info import ModelInfo
from .core.sink_report import Intervention
from .engine.residual_sinks import QUANTISED_DRAWS
from .engine.sink_writes import FACTORS
from .report_plan import ReportPlan
from .tasks.random_tokens import RandomTokens
from .tasks.text import Text

if TYPE_CHECKING:
    from .models._base import Scope

TESTED_LEVELS, TESTED_PROMPTS, RESIDUAL_PROMPTS = 2, 8, 4
"""Levels whose writes are tested, prompts for that, and prompts for residual sinks, whose dimensions are the same
everywhere."""


@dataclass(frozen=True)
class SinkPlan:
    """What a sink report measures.

    Attributes:
        text: see `tasks.text.Text`; None takes the embedded English.
        context: tokens a prompt; None takes 512 or the model's limit.
        prompts: at most.
        mode: thresholds, `relative` or the `paper`'s; see `analyses.residual_runs.Thresholds`.
        seed: of controls and random tokens.
        draws: random controls of each test.
        interventions: whether writes and dimensions are tested by changing them.
    """

    text: str | None = None
    context: int | None = None
    prompts: int = 16
    mode: Literal["relative", "paper"] = "relative"
    seed: int = 0
    draws: int = 10
    interventions: bool = True

    def task(self, scope: Scope) -> Text | RandomTokens:
        """Return what makes the prompts: text, or random tokens for random weights without a tokenizer.

        Raises:
            TaskError: the context is longer than the model's.
        """
        info, length = scope.info, self.context_for(scope.info)
        if scope.tokenizer is None and info.weights == "random" and self.text is None:
            return RandomTokens(
                n=self.prompts,
                length=length,
                seed=self.seed,
                vocab_size=info.vocab_size,
                bos_token_id=info.bos_token_id,
            )
        return Text(self.text, n=self.prompts, length=length)

    def context_for(self, info: ModelInfo) -> int:
        """Return the prompts' length.

        Raises:
            TaskError: longer than the model's context.
        """
        return ReportPlan(context=self.context).context_for(info)


def passes(plan: SinkPlan) -> int:
    """Return how many prompts a sink report runs through the model at most, repeats counted.

    Example:
        >>> passes(SinkPlan(prompts=16, interventions=False))
        92
    """
    seen = 5 * plan.prompts + 3 * min(plan.prompts, RESIDUAL_PROMPTS)
    if not plan.interventions:
        return seen
    writes = 2 * len(FACTORS) - 1 + 2 * plan.draws + 1
    dimensions = len(get_args(Intervention)) * (1 + plan.draws) + 2 + QUANTISED_DRAWS
    tested: Any = TESTED_LEVELS * min(plan.prompts, TESTED_PROMPTS) * writes
    return int(seen + tested + min(plan.prompts, RESIDUAL_PROMPTS) * dimensions)
