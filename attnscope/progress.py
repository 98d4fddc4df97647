"""Progress and cost on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.console import Console

    from .core.model_info import ModelInfo
    from .report_plan import ReportPlan
    from .workflow import Track


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


def announce(console: Console, info: ModelInfo, plan: ReportPlan) -> None:
    """Say, before it starts, what a report will run through the model."""
    tokens, multiplications = cost(info, plan)
    console.print(
        f"{info.model_id}: {len(info.attention_layers)} layers × {info.n_heads} query heads on {info.device} "
        f"({info.dtype}); about {tokens:,} tokens, {multiplications / 1e12:.2f} trillion multiply-adds",
        highlight=False,
        markup=False,
    )


def cost(info: ModelInfo, plan: ReportPlan) -> tuple[int, float]:
    """Return how many tokens a report runs at most, and how many multiply-adds that is (attention twice over)."""
    context = plan.context_for(info)
    limit = info.context_length or max(context, plan.needle_length)
    period = min(plan.period, (limit - 1) // 4)
    needle = min(plan.needle_length, limit)
    copies = 2 * period + 1
    passes = [
        (plan.prompts, context),
        (plan.short_prompts, min(64, limit)),
        (plan.repeats * (3 + plan.draws), copies),
        (plan.echoes, 4 * period + 1),
        (plan.needles * 2, needle),
        (min(plan.needles, plan.ablated_needles) * (2 + plan.needle_draws), needle),
    ]
    tokens = sum(count * length for count, length in passes)
    pairs = sum(count * length**2 / 2 for count, length in passes)
    attention = pairs * 3 * info.head_dim * info.n_heads * len(info.attention_layers)
    return tokens, tokens * (info.n_parameters or 0) + attention
