"""What a frequency report measures, and on which prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .core.errors import TaskError
from .tasks._packed import packed
from .tasks.needle import Needle
from .tasks.random_tokens import RandomTokens
from .tasks.reasoning import Reasoning
from .tasks.recall import Recall
from .tasks.text import Text

if TYPE_CHECKING:
    from datasets import Dataset

    from .core.model_info import ModelInfo

CONTEXT = 2048
"""Tokens a prompt where nothing else is asked."""
SHARES = (64, 32, 16, 8)
"""Budgets are these parts of the context. Chunks are ranked at the smallest, where random keys agree as little as the
256 keys of the paper's rows do (3.6%)."""
Task = Literal["text", "needle", "recall", "reasoning"]
TASKS: tuple[Task, ...] = get_args(Task)
RECALL_ITEMS, REASONING_TOKENS = 1600, 30
"""Facts there are, and fewer tokens than a puzzle with its answer has."""


@dataclass(frozen=True)
class FrequencyPlan:
    """Parameters of a frequency report.

    Attributes:
        text: see `tasks.text.Text`; None takes the embedded English.
        context: tokens a prompt; None takes 2,048 or the model's limit.
        prompts: text prompts that chunks are ranked on; as many others to try them on.
        queries: sampled a prompt.
        budgets: keys a query, K; None takes 1/64, 1/32, 1/16 and 1/8 of the context.
        budget: at which chunks are ranked; None takes the smallest.
        sizes: numbers of dominant chunks; None takes 1/8, 1/4 and 1/2 of them.
        pairing: `model`, or `adjacent` for (2i, 2i + 1) whatever the model turns.
        tasks: that are compared; the first must be `text`.
        task_prompts: of each task but text.
        seed: of queries, tasks and random chunks.

    Raises:
        TaskError: an unknown task or pairing, or a size that makes no sense.
    """

    text: str | None = None
    context: int | None = None
    prompts: int = 8
    queries: int = 8
    budgets: tuple[int, ...] | None = None
    budget: int | None = None
    sizes: tuple[int, ...] | None = None
    pairing: Literal["model", "adjacent"] = "model"
    tasks: tuple[Task, ...] = TASKS
    task_prompts: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairing not in ("model", "adjacent"):
            raise TaskError("pairing of chunks", found=repr(self.pairing), expected="'model' or 'adjacent'")
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks or self.tasks[0] != "text" or len(set(self.tasks)) != len(self.tasks):
            raise TaskError(
                "tasks of a frequency report", found=self.tasks, expected=f"'text' first, then others of {TASKS}"
            )
        for name in ("prompts", "queries", "task_prompts"):
            if getattr(self, name) < 1:
                raise TaskError(f"frequency {name}", found=getattr(self, name), expected="at least 1")
        for name in ("budgets", "sizes"):
            values = getattr(self, name)
            if values is not None and (not values or min(values) < 1 or list(values) != sorted(set(values))):
                raise TaskError(f"frequency {name}", found=values, expected="ascending numbers from 1 on")
        if self.budgets is not None and self.budget is not None and self.budget not in self.budgets:
            raise TaskError("frequency budget", found=self.budget, expected=f"one of {self.budgets}")

    @classmethod
    def quick(cls, **changes: Any) -> FrequencyPlan:
        """Return the plan of a head report: shorter and fewer prompts, text alone."""
        return cls(**{"context": 1024, "prompts": 4, "tasks": ("text",), **changes})

    def context_for(self, info: ModelInfo) -> int:
        """Return the prompts' length.

        Raises:
            TaskError: longer than the model's context, or too short for any budget.
        """
        limit = info.context_length
        context = self.context or min(CONTEXT, limit or CONTEXT)
        if limit is not None and context > limit:
            raise TaskError(
                f"context of {context} tokens",
                found=f"{info.model_id}, made for {limit}",
                expected=f"at most {limit}",
                fix=f"Pass --context {limit} or less.",
            )
        return context

    def budgets_for(self, context: int) -> tuple[int, ...]:
        """Return the budgets of prompts of this many tokens.

        Raises:
            TaskError: every budget is more than half of the context.

        Example:
            >>> FrequencyPlan().budgets_for(2048)
            (32, 64, 128, 256)
        """
        budgets = self.budgets or tuple(sorted({max(1, context // share) for share in SHARES}))
        if 2 * min(budgets) > context:
            raise TaskError(
                f"budgets of {', '.join(map(str, budgets))} keys",
                found=f"prompts of {context} tokens",
                expected=f"at least {2 * min(budgets)}, twice the smallest budget",
                fix="Give longer prompts or a smaller budget.",
            )
        return budgets

    def sizes_for(self, n_chunks: int) -> tuple[int, ...]:
        """Return the numbers of dominant chunks.

        Raises:
            TaskError: more than there are.

        Example:
            >>> FrequencyPlan().sizes_for(32)
            (4, 8, 16)
        """
        sizes = self.sizes or tuple(sorted({max(1, n_chunks // part) for part in (8, 4, 2)}))
        if max(sizes) > n_chunks:
            raise TaskError("numbers of dominant chunks", found=sizes, expected=f"at most {n_chunks}, a head's chunks")
        return sizes


def text_task(plan: FrequencyPlan, info: ModelInfo, has_tokenizer: bool) -> Text | RandomTokens:
    """Return the task of the text prompts: those that chunks are ranked on, then the held-out ones.

    A model with random weights and no tokenizer reads random tokens.
    """
    context, n = plan.context_for(info), 2 * plan.prompts
    if not has_tokenizer and info.weights == "random" and plan.text is None:
        return RandomTokens(
            n=n, length=context, seed=plan.seed, vocab_size=info.vocab_size, bos_token_id=info.bos_token_id
        )
    return Text(plan.text, n=n, length=context)


def task_builders(plan: FrequencyPlan, info: ModelInfo) -> dict[str, tuple[Any, Callable[[Any], Dataset]]]:
    """Return task → (task, tokenizer → prompts) for every task but text; short items are packed to the context."""
    context, n = plan.context_for(info), plan.task_prompts
    needle = Needle(n=n, length=context, seed=plan.seed)
    recall = Recall(n=RECALL_ITEMS, seed=plan.seed)
    reasoning = Reasoning(n=-(-n * context // REASONING_TOKENS), seed=plan.seed)
    every: dict[str, tuple[Any, Callable[[Any], Dataset]]] = {
        "needle": (needle, needle.build),
        "recall": (recall, lambda tokenizer: packed(recall.build(tokenizer), tokenizer, n, context)),
        "reasoning": (reasoning, lambda tokenizer: packed(reasoning.build(tokenizer), tokenizer, n, context)),
    }
    return {name: every[name] for name in plan.tasks if name != "text"}


def frequency_cost(plan: FrequencyPlan, info: ModelInfo, has_tokenizer: bool) -> str:
    """Return, in one line, what a report will run through the model at most.

    Raises:
        TaskError: the context does not fit the model.
    """
    context = plan.context_for(info)
    others = plan.task_prompts * (len(plan.tasks) - 1) if has_tokenizer else 0
    tokens, rows = (2 * plan.prompts + others) * context, (2 * plan.prompts + others) * plan.queries
    layers = len(info.attention_layers)
    forward = tokens * ((info.n_parameters or 0) + context * layers * info.n_heads * info.head_dim)
    partial = rows * layers * info.n_heads * context * info.head_dim
    return (
        f"{info.model_id}: {layers} layers × {info.n_heads} query heads on {info.device} ({info.dtype}); about "
        f"{tokens:,} tokens, {(forward + partial) / 1e12:.2f} trillion multiply-adds, and the top keys of "
        f"{rows * layers * info.n_heads * info.head_dim // 2:,} rows of up to {context:,} keys"
    )
