"""The smaller plans of the reports inside a head report."""

from __future__ import annotations

from .core.model_info import ModelInfo
from .frequency_plan import FrequencyPlan
from .gate_plan import GatePlan
from .report_plan import ReportPlan
from .retrieval_plan import RetrievalPlan
from .sink_plan import SinkPlan

SINK_PROMPTS = 8
"""Text prompts of the sink report, at most."""


def quick_sinks(plan: ReportPlan) -> SinkPlan:
    """Return the sink report's plan: no interventions."""
    return SinkPlan(context=plan.context, prompts=min(plan.prompts, SINK_PROMPTS), seed=plan.seed, interventions=False)


def quick_retrieval(plan: ReportPlan, info: ModelInfo) -> RetrievalPlan:
    """Return the retrieval report's plan: needles of one length, no ablations."""
    length = min(plan.needle_length, info.context_length or plan.needle_length)
    return RetrievalPlan(
        lengths=(length,),
        repeats=max(1, plan.needles // 5),
        passages=8,
        echoes=2,
        patterns=2,
        causal=False,
        seed=plan.seed,
    )


def quick_gates(plan: ReportPlan) -> tuple[GatePlan, ...]:
    """Return the plans of the gates that were asked for."""
    return tuple(GatePlan(method=method, seed=plan.seed) for method in plan.gates)


def quick_frequency(plan: ReportPlan, info: ModelInfo) -> FrequencyPlan:
    """Return the frequency report's plan: text alone, 1,024 tokens a prompt or what the model was made for."""
    shorter = {"context": info.context_length} if (info.context_length or 1024) < 1024 else {}
    return FrequencyPlan.quick(seed=plan.seed, **shorter)
