"""What a report measures: prompt sets and their collectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from attnscope_kernels import Screen

from .collectors import collectors
from .core.errors import TaskError
from .core.model_info import ModelInfo
from .tasks._answers import with_answers
from .tasks.needle import Needle
from .tasks.random_tokens import RandomTokens
from .tasks.repeats import Repeats
from .tasks.text import Text

if TYPE_CHECKING:
    from datasets import Dataset

    from .collectors._base import Collector

TEXT_COLLECTORS = (
    "first_token_mass",
    "sink_mass",
    "received_mass",
    "received_max",
    "entropy",
    "entropy_normalized",
    "max_prob",
    "local_mass",
    "mass_by_distance",
    "mean_distance",
    "value_norm",
    "value_drain",
    "residual_norm",
    "outlier_dimensions",
)
SCREENED = "the report was screened (--mode screen), and this needs every distance; --mode exact measures it"
SHORT = 64
"""Prompt length of the sink rate in 2410.10781, tokens."""
NO_NEEDLES = "the model has no tokenizer, so no needle can be written for it"


NORMAL_CONTEXT = 512
"""Tokens of a text prompt where nothing else is asked."""
SWEPT_UP_TO, EFFECT_PROMPTS = 200_000_000, 24
"""Parameters up to which a CPU ablates every head by itself unasked, and on how many prompts a task."""
SINKS_UP_TO = 4096
"""Tokens a text prompt up to which a report holds a sink report where nothing else is asked."""


@dataclass(frozen=True)
class ReportPlan:
    """Parameters of a report.

    Attributes:
        text: a .txt, .jsonl or .parquet file, or a Hugging Face dataset; None takes the embedded English.
        context: tokens a text prompt; None takes 512, or the model's context where that is shorter.
        prompts: text prompts.
        documents: one document a prompt instead of packed text.
        truncate: with `documents`, cut what is longer than `context`.
        column: text column of .jsonl, .parquet and datasets.
        seed: of repeats, needles and random controls.
        short_prompts: prompts of 64 tokens, for the sink rate.
        repeats: prompts of repeated random tokens, `period` tokens twice over.
        echoes: the same, four times over.
        needles: retrieval prompts of `needle_length` tokens.
        draws: random controls of the copying check.
        ablated_needles: needles that the retrieval check ablates heads on.
        needle_draws: random controls of the retrieval check.
        mode: `exact`, or `screen` for the text prompts: a sample of the queries, and exact sums of every key that
            receives 1% or more (see `attnscope_kernels.Screen`); far distances are then missing.
        sinks: whether a written report holds a sink report (without interventions), four more passes over the text;
            None takes it up to SINKS_UP_TO tokens a prompt, and not under a screen.
        retrieval: whether a written report holds a retrieval report (without ablations), on needles of
            `needle_length` tokens.
        budget: share of KV heads that stay full in the decode plan, the best by retrieval, then induction; None goes by
            what each head needs.
        gates: methods whose gates are trained, `duo_attention` and `hardkuma`; they cost minutes on a CPU.
        frequency: whether a written report holds a frequency report, on prompts of 1,024 tokens.
        circuit_prompts: recall and reasoning prompts, of each, on which every head is ablated by itself; 0 for none;
            None takes 24 on a GPU and for models up to SWEPT_UP_TO parameters, and none for larger ones on a CPU.

    Raises:
        TaskError: `prompts` or `context` is too small.
    """

    text: str | None = None
    context: int | None = None
    prompts: int = 16
    documents: bool = False
    truncate: bool = False
    column: str = "text"
    seed: int = 0
    short_prompts: int = 100
    repeats: int = 16
    period: int = 100
    echoes: int = 8
    needles: int = 20
    needle_length: int = 1024
    draws: int = 10
    ablated_needles: int = 10
    needle_draws: int = 5
    mode: Literal["exact", "screen"] = "exact"
    sinks: bool | None = None
    budget: float | None = None
    retrieval: bool = True
    gates: tuple[Literal["duo_attention", "hardkuma"], ...] = ()
    frequency: bool = True
    circuit_prompts: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("exact", "screen"):
            raise TaskError("mode of a report", found=repr(self.mode), expected="'exact' or 'screen'")
        unknown = [method for method in self.gates if method not in ("duo_attention", "hardkuma")]
        if unknown:
            raise TaskError("gates of a report", found=repr(unknown[0]), expected="'duo_attention' or 'hardkuma'")
        if self.circuit_prompts is not None and self.circuit_prompts < 0:
            raise TaskError("circuit prompts of a report", found=self.circuit_prompts, expected="0 or more")
        if self.budget is not None and not 0 <= self.budget <= 1:
            raise TaskError("budget of full KV heads", found=self.budget, expected="a share of all KV heads, 0 to 1")

    def effect_prompts(self, info: ModelInfo) -> int:
        """Return how many recall and reasoning prompts, of each, every head is ablated on by itself."""
        if self.circuit_prompts is not None:
            return self.circuit_prompts
        affordable = info.device != "cpu" or (info.n_parameters or 0) <= SWEPT_UP_TO
        return EFFECT_PROMPTS if affordable else 0

    def wants_sinks(self, tokens: int) -> bool:
        """Return whether a report on prompts of this many tokens holds a sink report."""
        return self.sinks if self.sinks is not None else self.mode == "exact" and tokens <= SINKS_UP_TO

    def context_for(self, info: ModelInfo) -> int:
        """Return the text prompts' length.

        Raises:
            TaskError: longer than the model's context.
        """
        limit = info.context_length
        if self.context is None:
            return min(NORMAL_CONTEXT, limit or NORMAL_CONTEXT)
        if limit is not None and self.context > limit:
            raise TaskError(
                f"context of {self.context} tokens",
                found=f"{info.model_id}, made for {limit}",
                expected=f"at most {limit}",
                fix=f"Pass --context {limit} or less.",
            )
        return self.context


@dataclass(frozen=True)
class Section:
    """One prompt set and what is collected on it.

    Attributes:
        name: of the prompt set.
        task: makes the prompts.
        build: tokenizer → prompts.
        collectors: what is measured on them.
        skipped: why the set is not made, or None.
        screen: how the queries are sampled, or None where all are taken.
    """

    name: str
    task: Any
    build: Callable[[Any], Dataset]
    collectors: tuple[Collector, ...]
    skipped: str | None = None
    screen: Screen | None = None


def sections(plan: ReportPlan, info: ModelInfo, has_tokenizer: bool = True) -> list[Section]:
    """Return the report's prompt sets in the order in which they run; they fit the model's context.

    Without a tokenizer, a model with random weights reads random tokens in place of text (a text that was asked for
    stays, and its task refuses) and no needles.
    """
    wordless = not has_tokenizer and info.weights == "random"
    context = plan.context_for(info)
    limit = info.context_length or max(context, plan.needle_length)
    period = min(plan.period, (limit - 1) // 4, *([info.vocab_size - 1] if wordless else []))
    get = collectors.get
    lengths = tuple(sorted({SHORT, context}))
    drawn: dict[str, Any] = {"seed": plan.seed}
    if wordless:
        drawn |= {"vocab_size": info.vocab_size, "bos_token_id": info.bos_token_id}
    text: Text | RandomTokens
    short: Text | RandomTokens
    if wordless and plan.text is None and not plan.documents:
        text = RandomTokens(n=plan.prompts, length=context, **drawn)
        short = RandomTokens(n=plan.short_prompts, length=min(SHORT, limit), **drawn)
    else:
        text = Text(
            plan.text,
            n=plan.prompts,
            length=context,
            packing="documents" if plan.documents else "packed",
            truncate=plan.truncate,
            column=plan.column,
        )
        short = Text(plan.text, n=plan.short_prompts, length=min(SHORT, limit), column=plan.column)
    twice = Repeats(n=plan.repeats, period=period, copies=2, **drawn)
    often = Repeats(n=plan.echoes, period=period, copies=4, **drawn)
    needle = Needle(n=plan.needles, length=min(plan.needle_length, limit), seed=plan.seed)
    screen = Screen(seed=plan.seed) if plan.mode == "screen" else None
    of_text = (
        *(get(name)() for name in TEXT_COLLECTORS),
        get("sink_rate")(lengths=lengths),
        *([get("positional_share")()] if screen is None else []),
    )
    copying = tuple(get(name)() for name in ("previous_token", "duplicate_token", "induction"))
    return [
        Section("text", text, text.build, of_text, screen=screen),
        Section("short", short, short.build, (get("sink_rate")(lengths=(SHORT,)),)),
        Section("repeats", twice, twice.build, copying),
        Section("echoes", often, often.build, (get("echo")(),)),
        Section(
            "needle",
            needle,
            lambda tokenizer: with_answers(needle.build(tokenizer)),
            (get("retrieval")(),),
            skipped=NO_NEEDLES if wordless else None,
        ),
    ]
