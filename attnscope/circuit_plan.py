"""What a circuit report measures, on which prompts, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .core.errors import TaskError, UnknownNameError
from .core.units import LEVELS, Level
from .tasks import tasks as registry
from .tasks._matched import matched
from .tasks.reasoning_pairs import ReasoningPairs
from .tasks.recall_pairs import RecallPairs

if TYPE_CHECKING:
    from datasets import Dataset

Ablation = Literal["mean", "zero", "resample"]
Method = Literal["exact", "atp"]
Source = Literal["pocket", "public"]
ALIASES = {"recall": "recall_pairs", "reasoning": "reasoning_pairs"}
SERVES_BOTH = 0.2
"""A unit whose effect on the other task is above this part of its own is in no selective circuit."""


@dataclass(frozen=True)
class CircuitPlan:
    """What a circuit report measures.

    Attributes:
        tasks: one or two prompt sets with pairs: `recall`, `reasoning`, `ioi`, `colored_objects`, `greater_than`, ….
            Recall and reasoning together get prompts of the same lengths.
        prompts: pairs a task; half of them choose circuits, the other half test them.
        source: of recall and reasoning: the embedded model's world (`pocket`) or public facts and plain English.
        pairs: your own pairs, a .jsonl file, in place of the tasks' (one task, named `pairs`).
        levels: `head`, `layer` (attention and MLP of each block), `neuron`.
        method: how heads are measured: each exactly, or screened by attribution patching (`atp`) and the best verified.
            Neurons are always screened.
        verify: units a task that are measured exactly after a screen.
        ablation: what takes a unit's place: its mean over all prompts' tokens, zero, or its value on another prompt.
        sizes: units of the circuits.
        draws: random controls of each circuit.
        least_drop: a selective circuit costs its own task at least this much accuracy, 0..1.
        most_other: and the other task at most this.
        edges: whether edges are scored (EAP-IG).
        seed: of prompts, halves and controls.

    Raises:
        TaskError: a parameter is out of range.
        UnknownNameError: no such task, level, method or ablation.

    Example:
        >>> CircuitPlan(tasks=("recall",)).names
        ('recall_pairs',)
    """

    tasks: tuple[str, ...] = ("recall", "reasoning")
    prompts: int = 64
    source: Source = "pocket"
    pairs: str | None = None
    levels: tuple[Level, ...] = ("head", "layer", "neuron")
    method: Method = "exact"
    verify: int = 32
    ablation: Ablation = "mean"
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    draws: int = 5
    least_drop: float = 0.15
    most_other: float = 0.03
    edges: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for field, low in {"prompts": 8, "verify": 1, "draws": 1}.items():
            if getattr(self, field) < low:
                raise TaskError(f"circuit plan, {field}", found=getattr(self, field), expected=f"at least {low}")
        if not 1 <= len(self.tasks) <= 2 or len(set(self.tasks)) != len(self.tasks):
            raise TaskError("circuit plan, tasks", found=self.tasks, expected="one task, or two different ones")
        if not self.sizes or min(self.sizes) < 1:
            raise TaskError("circuit plan, sizes", found=self.sizes, expected="numbers of units, 1 or more")
        for what, given, known in (
            ("level", self.levels, LEVELS),
            ("method", (self.method,), get_args(Method)),
            ("ablation", (self.ablation,), get_args(Ablation)),
            ("source", (self.source,), get_args(Source)),
        ):
            wrong = [name for name in given if name not in known]
            if wrong or not given:
                raise UnknownNameError(
                    f"circuit plan, {what}", found=", ".join(wrong) or "none", expected=f"of {', '.join(known)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks in the registry."""
        return tuple(ALIASES.get(task, task) for task in self.tasks)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the tasks in the report."""
        return ("pairs",) if self.pairs is not None else self.tasks

    def build(self, tokenizer: Any) -> dict[str, tuple[Any, Dataset]]:
        """Return (task, pairs) of every task, by its name in the report.

        Raises:
            TaskError: pairs cannot be made with this tokenizer, or a task makes no pairs.
            UnknownNameError: no such task.
        """
        if self.pairs is not None:
            own = registry.get("pairs")(source=self.pairs, n=self.prompts)
            return {"pairs": (own, own.build(tokenizer))}
        if set(self.names) == {"recall_pairs", "reasoning_pairs"}:
            common: dict[str, Any] = {"n": self.prompts, "seed": self.seed, "source": self.source}
            recall, reasoning = RecallPairs(**common), ReasoningPairs(**common)
            facts, puzzles = matched(tokenizer, recall, reasoning)
            by_name: dict[str, tuple[Any, Dataset]] = {
                recall.name: (recall, facts),
                reasoning.name: (reasoning, puzzles),
            }
            return {label: by_name[name] for label, name in zip(self.tasks, self.names, strict=True)}
        return {label: self._one(name, tokenizer) for label, name in zip(self.tasks, self.names, strict=True)}

    def _one(self, name: str, tokenizer: Any) -> tuple[Any, Dataset]:
        kind = registry.get(name)
        extra = {"source": self.source} if name in ALIASES.values() else {}
        task = kind(n=self.prompts, seed=self.seed, **extra)
        pairs = task.build(tokenizer)
        lacking = sorted({"corrupt_ids", "answer_ids", "wrong_ids"} - set(pairs.column_names))
        if lacking:
            raise TaskError(
                f"task {name!r} of a circuit report",
                found=f"no column {' and no column '.join(lacking)}",
                expected="pairs of a clean and a corrupt prompt",
                fix="Use recall, reasoning, ioi, colored_objects, greater_than, or your own with --pairs.",
            )
        return task, pairs


def planned_forwards(plan: CircuitPlan, n_heads: int, n_blocks: int) -> int:
    """Return how many forwards of one prompt a report would take one by one, which sweeps share."""
    units = 0
    for level in plan.levels:
        exact = {"head": n_heads if plan.method == "exact" else plan.verify, "layer": 2 * n_blocks}
        units += exact.get(level, plan.verify) * len(plan.labels)
        units += len(plan.sizes) * len(plan.labels) * (2 + plan.draws)
    return units * plan.prompts * len(plan.labels) // 2
