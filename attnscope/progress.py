"""Progress and cost on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .circuit_plan import CircuitPlan, planned_forwards
from .gate_plan import cost as gate_cost
from .quick_plans import quick_frequency, quick_gates, quick_retrieval, quick_sinks
from .report_plan import ReportPlan, sections
from .retrieval_plan import RetrievalPlan, planned_tokens
from .sink_plan import SinkPlan, passes
from .tasks.repeats import Repeats

if TYPE_CHECKING:
    from rich.console import Console

    from .core.model_info import ModelInfo
    from .core.track import Track
    from .models._base import Scope
    from .models._outline import Outline
    from .tasks.needle import Needle
    from .tasks.random_tokens import RandomTokens
    from .tasks.text import Text


@contextmanager
def tracker(console: Console) -> Iterator[Track]:
    """Show one bar for each part of a run."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:

        @contextmanager
        def track(what: str, total: int) -> Iterator[Callable[[int], None]]:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)
            progress.update(task, completed=total)

        yield track


def announce(console: Console, model: Scope | Outline, plan: ReportPlan) -> None:
    """Say, before it starts, what a report will run through the model."""
    _announce(console, model.info, *cost(model.info, plan, model.tokenizer is not None))


def announce_sinks(console: Console, scope: Scope, plan: SinkPlan) -> None:
    """Say, before it starts, what a sink report will run through the model at most."""
    info, count, length = scope.info, passes(plan), plan.context_for(scope.info)
    attention = 2 * count * length**2 / 2 * info.head_dim * info.n_heads * len(info.attention_layers)
    _announce(console, info, count * length, count * length * (info.n_parameters or 0) + attention, "at most")


def announce_retrieval(console: Console, scope: Scope, plan: RetrievalPlan) -> None:
    """Say, before it starts, what a retrieval report will run through the model at most."""
    info, tokens = scope.info, planned_tokens(plan, scope.info)
    attention = tokens * max(plan.grid(info).lengths) * info.head_dim * info.n_heads * len(info.attention_layers)
    _announce(console, info, tokens, tokens * (info.n_parameters or 0) + attention, "at most")


def announce_circuits(console: Console, scope: Scope, plan: CircuitPlan) -> None:
    """Say, before it starts, how many runs of a prompt a circuit report measures, which its sweeps share."""
    runs = planned_forwards(plan, len(scope.info.heads), scope.info.n_layers)
    console.print(
        f"{scope.info.model_id}: {' and '.join(plan.labels)}, {plan.prompts} pairs each, {', '.join(plan.levels)} level"
        f" on {scope.info.device} ({scope.info.dtype}); about {runs:,} edited runs of a prompt, which share forwards",
        highlight=False,
        markup=False,
    )


def _announce(console: Console, info: ModelInfo, tokens: int, multiplications: float, about: str = "about") -> None:
    weights = f", random weights (seed {info.weights_seed})" if info.weights == "random" else ""
    console.print(
        f"{info.model_id}{weights}: {len(info.attention_layers)} layers × {info.n_heads} query heads on {info.device} "
        f"({info.dtype}); {about} {tokens:,} tokens, {multiplications / 1e12:.2f} trillion multiply-adds",
        highlight=False,
        markup=False,
    )


def cost(info: ModelInfo, plan: ReportPlan, has_tokenizer: bool = True) -> tuple[int, float]:
    """Return how many tokens a report runs at most, and how many multiply-adds that is.

    Attention counts twice, for its statistics, but once under a screen.
    """
    parts = sections(plan, info, has_tokenizer)
    shapes = {part.name: (0, 0) if part.skipped else _shape(part.task) for part in parts}
    repeats, needle = shapes["repeats"], shapes["needle"]
    passes = [
        *shapes.values(),
        (repeats[0] * (2 + plan.draws), repeats[1]),
        needle,
        *_extra_passes(info, plan, has_tokenizer),
        (min(needle[0], plan.ablated_needles) * (2 + plan.needle_draws), needle[1]),
    ]
    tokens = sum(count * length for count, length in passes)
    pairs = sum(count * length**2 / 2 for count, length in passes)
    sampled = sum(shapes[part.name][0] * shapes[part.name][1] ** 2 / 2 for part in parts if part.screen is not None)
    attention = (3 * pairs - sampled) * info.head_dim * info.n_heads * len(info.attention_layers)
    return tokens, tokens * (info.n_parameters or 0) + attention


def _extra_passes(info: ModelInfo, plan: ReportPlan, has_tokenizer: bool) -> list[tuple[int, int]]:
    """Return (prompts, tokens) of the reports inside a head report."""
    found, context = [], plan.context_for(info)
    if plan.wants_sinks(context):
        found.append((passes(quick_sinks(plan)), context))
    if plan.retrieval and has_tokenizer:
        length = quick_retrieval(plan, info).grid_length
        found.append((-(-planned_tokens(quick_retrieval(plan, info), info) // length), length))
    for gates in quick_gates(plan):
        found.append((-(-gate_cost(info, gates)[0] // gates.length(info)), gates.length(info)))
    if plan.frequency:
        quick = quick_frequency(plan, info)
        found.append((2 * quick.prompts, quick.context_for(info)))
    return found


def _shape(task: Text | RandomTokens | Needle | Repeats) -> tuple[int, int]:
    return task.n, 1 + task.period * task.copies if isinstance(task, Repeats) else task.length
