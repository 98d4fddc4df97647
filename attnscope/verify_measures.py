"""Measurements that can be set beside published numbers: sink rate, secondary sinks, residual sinks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .collectors.sink_rate import SinkRate
from .core.report import Missing, Provenance
from .core.sink_report import SinkReport
from .core.track import Track
from .engine.collect import collect
from .models._loading import require_causal
from .present.tokens import visible
from .provenance import provenance
from .report_plan import NORMAL_CONTEXT
from .reports.comparison import Values
from .reports.published_metrics import residual_values, secondary_values
from .sink_workflow import SinkPlan, sink_report
from .tasks.random_tokens import RandomTokens
from .tasks.text import Text

if TYPE_CHECKING:
    from .models._base import Scope

RATE_KINDS = ("natural", "random", "repeated")


@dataclass(frozen=True)
class VerifyPlan:
    """What is run for one claim.

    Attributes:
        text: see `tasks.text.Text`; None takes the embedded English.
        prompts: at most; None takes 100 for the sink rate, 16 otherwise.
        context: tokens a prompt; None takes 64 for the sink rate, 512 or the model's limit otherwise.
        seed: of random tokens.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
    """

    text: str | None = None
    prompts: int | None = None
    context: int | None = None
    seed: int = 0
    implementation: str = "auto"
    batch_tokens: int = 8192

    def size(self, claim: str, limit: int | None) -> tuple[int, int]:
        """Return (prompts, tokens a prompt) for a claim and a model's limit."""
        if claim == "sink-rate":
            return self.prompts or 100, self.context or 64
        return self.prompts or 16, self.context or min(NORMAL_CONTEXT, limit or NORMAL_CONTEXT)

    @property
    def options(self) -> dict[str, Any]:
        """Options of every pass."""
        return {"implementation": self.implementation, "batch_tokens": self.batch_tokens}


@dataclass(frozen=True)
class Findings:
    """Measured values by metric, how they were measured, and what a reader has to know."""

    values: Values
    protocol: Mapping[str, int | float | str]
    provenance: Provenance
    notes: tuple[str, ...] = ()


def sink_rates(scope: Scope, plan: VerifyPlan, track: Track) -> Findings:
    """Measure the sink rate on natural text, random tokens and one repeated token (2410.10781), percent of heads.

    Natural text begins with BOS where the tokenizer puts it by itself; the other two have none.

    Raises:
        UnsupportedModelError: the model is not causal.
        TaskError: the text is missing or empty, or the model's context is below the prompts' length.
        DeviceError: the device ran out of memory.
    """
    require_causal(scope, "the sink rate")
    n, length = plan.size("sink-rate", scope.info.context_length)
    values: dict[str, int | float | Missing] = {}
    notes, sets, implementations = [], dict[str, tuple[Any, Any]](), set[str]()
    for kind in RATE_KINDS:
        metric = f"sink_rate_{kind}"
        if kind == "natural" and scope.tokenizer is None:
            values[metric] = Missing(reason="the model has no tokenizer")
            continue
        task, prompts = _rate_prompts(kind, scope, plan, n, length)
        if len(prompts) < n:
            notes.append(f"The text gives {len(prompts)} of {n} prompts.")
        with track(f"Sink rate, {kind}", sum(map(len, prompts["input_ids"]))) as advance:
            stats = collect(
                scope,
                prompts,
                [SinkRate(lengths=(length,))],
                **plan.options,
                progress=lambda done, _, advance=advance: advance(done),  # type: ignore[misc]
            )
        rate = float(stats.sink_rate.mean(skipna=False))
        values[metric] = rate if math.isfinite(rate) else Missing(reason=f"no prompt has {length} tokens")
        sets[kind] = (task, prompts)
        implementations.add(stats.attrs["implementation"])
    first = "BOS" if scope.tokenizer is not None and _adds_bos(scope.tokenizer) else "no BOS"
    policy = f"natural text: {first}, as the tokenizer does by itself; random and repeated tokens: none"
    made = provenance(scope, plan.seed, sets, implementations, None).model_copy(update={"bos_policy": policy})
    how: dict[str, int | float | str] = {
        "T": length,
        "prompts": n,
        "epsilon": SinkRate.epsilon,
        "comparison": ">",
        "BOS": policy,
    }
    return Findings(values, how, made, tuple(notes))


def _rate_prompts(kind: str, scope: Scope, plan: VerifyPlan, n: int, length: int) -> tuple[Any, Any]:
    tokenizer, size = scope.tokenizer, scope.info.vocab_size
    if kind == "natural":
        task = Text(plan.text, n=n, length=length)
        return task, task.build(tokenizer) if _adds_bos(tokenizer) else without_bos(task, tokenizer)
    size = size if tokenizer is None else min(size, len(tokenizer))
    random = RandomTokens(n=n, length=length, seed=plan.seed, vocab_size=size)
    prompts = without_bos(random, tokenizer)
    if kind == "random":
        return random, prompts
    return None, _changed(prompts, lambda ids: ids[:1] * length)


def _adds_bos(tokenizer: Any) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def without_bos(task: Text | RandomTokens, tokenizer: Any) -> Any:
    """Return a task's prompts without their BOS, each as long as the task says.

    Example:
        >>> without_bos(RandomTokens(n=1, length=3, vocab_size=9), None).num_rows
        1
    """
    if tokenizer is None or tokenizer.bos_token_id is None:
        return task.build(tokenizer)
    built = replace(task, length=task.length + 1).build(tokenizer)
    return _changed(built, lambda ids: ids[1:])


def _changed(prompts: Any, change: Callable[[list[int]], list[int]]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [change(ids) for ids in prompts["input_ids"]]})


def secondary_sinks(scope: Scope, plan: VerifyPlan, track: Track) -> Findings:
    """Measure where primary and secondary sinks start and how long they live, as 2512.22213's code does.

    Raises:
        TaskError: the text is missing, empty, too short or too long.
        UnsupportedModelError: the model is not causal.
        DeviceError: the device ran out of memory.
    """
    n, length = plan.size("secondary-sinks", scope.info.context_length)
    wanted = SinkPlan(plan.text, length, n, "paper", plan.seed, interventions=False)
    report = sink_report(scope, wanted, **plan.options, track=track)
    how: dict[str, int | float | str] = {
        "T": length,
        "prompts": report.n_prompts,
        "mode": "paper",
        "BOS": report.provenance.bos_policy,
    }
    return Findings(secondary_values(report), how, report.provenance, (*secondary_notes(report), *report.notes))


def secondary_notes(report: SinkReport) -> tuple[str, ...]:
    """Return the levels of secondary sinks with their counts, and their commonest tokens."""
    levels = sorted((level for level in report.levels if level.kind == "secondary"), key=lambda one: -one.n_sinks)
    if not levels:
        return ()
    shown = ", ".join(f"({one.first_layer}, {one.lifetime}) × {one.n_sinks}" for one in levels)
    tokens = Counter((visible(sink.token), sink.token_id) for sink in report.of_kind("secondary")).most_common(5)
    words = ", ".join(f"{token} ({number}) × {count}" for (token, number), count in tokens)
    return (f"Secondary sinks as (first layer, lifetime) × count: {shown}.", f"Their tokens (ids) × count: {words}.")


def residual_dimensions(scope: Scope, plan: VerifyPlan, track: Track) -> Findings:
    """Measure the residual sink dimension, its weight in the norms and what it does to perplexity (2601.22966).

    Raises:
        TaskError: the text is missing or empty, or its prompts are too long.
        UnsupportedModelError: the model is not causal, or hidden states overflow the dtype.
        DeviceError: the device ran out of memory.
    """
    from .engine.residual_sinks import residual_sinks  # type: ignore[import-not-found, unused-ignore]

    require_causal(scope, "the perplexity without residual sinks")
    n, length = plan.size("residual-sinks", scope.info.context_length)
    task = Text(plan.text, n=n, length=length)
    prompts = without_bos(task, scope.tokenizer)
    with track("Residual sinks", 100) as advance:
        found = residual_sinks(
            scope,
            prompts,
            mode="paper",
            draws=1,
            interventions=True,
            seed=plan.seed,
            **plan.options,
            progress=lambda done, total: advance(100 * done // max(total, 1)),
        )
    policy = "no prompt begins with BOS"
    made = provenance(scope, plan.seed, {"text": (task, prompts)}, (), None).model_copy(update={"bos_policy": policy})
    how: dict[str, int | float | str] = {"T": length, "prompts": len(prompts), "BOS": policy, "mode": "paper"}
    dimensions = [] if isinstance(found, Missing) else [str(one.dimension) for one in found.dimensions]
    several = f"Weights and perplexities are of {len(dimensions)} dimensions together: {', '.join(dimensions)}."
    return Findings(residual_values(found), how, made, (several,) if len(dimensions) > 1 else ())
