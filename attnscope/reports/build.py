"""Build a HeadReport from statistics of several prompt sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from ..analyses.intervals import bootstrap_mean
from ..analyses.sinks import outlier_dimensions, sink_tokens
from ..analyses.taxonomy import RULES, Rule, classify
from ..core.model_info import ModelInfo
from ..core.names import SCORES
from ..core.report import (
    CausalCheck,
    Evidence,
    HeadRecord,
    HeadReport,
    Interval,
    Label,
    Measured,
    Missing,
    OutlierDimension,
    Provenance,
    SinkToken,
)
from .decode_plan import plan_by_need, plan_under_budget

PROMPT_SET_OF: dict[str, str] = {
    "first_token_mass": "text",
    "sink_mass": "text",
    "received_max": "text",
    "local_mass": "text",
    "mean_distance": "text",
    "entropy": "text",
    "entropy_normalized": "text",
    "max_prob": "text",
    "positional_share": "text",
    "value_norm_ratio": "text",
    "value_drain": "text",
    "sink_rate": "short",
    "previous_token": "repeats",
    "duplicate_token": "repeats",
    "induction": "repeats",
    "echo": "echoes",
    "retrieval": "needle",
    "copying": "copying",
    "importance": "importance",
    "recall_effect": "recall",
    "reasoning_effect": "reasoning",
}
"""Which entry of the statistics a score comes from: a prompt set, or `copying` and `importance`, which name theirs."""

MAX_SINKS, MAX_OUTLIERS = 200, 16
_NO_VALUE = {"copying": "the head's weights move no token's logit"}


def build(
    info: ModelInfo,
    statistics: Mapping[str, xr.Dataset],
    provenance: Provenance,
    *,
    decode_token: Callable[[int], str] = str,
    causal_checks: Sequence[CausalCheck] = (),
    missing: Mapping[str, str] | None = None,
    rules: Sequence[Rule] = RULES,
    budget: float | None = None,
) -> HeadReport:
    """Classify every head.

    Args:
        info: the model.
        statistics: prompt set name (see PROMPT_SET_OF) → dataset; an absent set leaves its scores missing. `copying`
            is what `copying_scores` gives: no prompts, and heads that move no token's logit stay missing.
        provenance: how the statistics were made.
        decode_token: token id → text, for the sink table.
        causal_checks: ablations that were run.
        missing: score → reason why it was not measured.
        rules: the taxonomy.
        budget: share of KV heads that stay full in the decode plan, 0..1; None goes by what each head needs.

    Raises:
        StatisticsError: a prompt set lacks a variable that the report needs, or nothing ranks KV heads under a budget.
        TaskError: the budget is not within 0..1.
    """
    evidence = _all_evidence(info, statistics, dict(missing or {}))
    records = tuple(_record(info, layer, head, evidence, rules) for layer, head in info.heads)
    short = statistics.get("short")
    text = statistics.get("text")
    return HeadReport(
        model=info,
        records=records,
        decode=plan_by_need(info, records, text) if budget is None else plan_under_budget(info, records, budget),
        sink_rate=_sink_rates([data for data in (short, text) if data is not None]),
        sinks=_sinks(text, decode_token),
        outlier_dimensions=_outliers(text),
        causal_checks=tuple(causal_checks),
        rules=tuple(rule.row() for rule in rules),
        provenance=provenance,
    )


def _all_evidence(
    info: ModelInfo, statistics: Mapping[str, xr.Dataset], missing: dict[str, str]
) -> dict[str, np.ndarray]:
    return {score: _evidence(info, score, statistics, missing) for score in SCORES}


def _evidence(
    info: ModelInfo, score: str, statistics: Mapping[str, xr.Dataset], missing: Mapping[str, str]
) -> np.ndarray:
    prompt_set = PROMPT_SET_OF.get(score)
    table = np.empty((len(info.attention_layers), info.n_heads), dtype=object)
    if score in missing or prompt_set is None or score not in statistics.get(prompt_set, ()):
        table[:] = Missing(reason=missing.get(score, "this report does not measure it"))
        return table
    data = statistics[prompt_set]
    array = data[score]
    if "length" in array.dims:
        array = array.isel(length=0)
    per_prompt = array.transpose("prompt", ...).values if "prompt" in array.dims else None
    low, high = bootstrap_mean(per_prompt) if per_prompt is not None else (None, None)
    for row, head in np.ndindex(table.shape):
        values = per_prompt[:, row, head] if per_prompt is not None else array.values[row, head][None]
        measured = values[~np.isnan(values)]
        if not len(measured):
            table[row, head] = Missing(reason=_NO_VALUE.get(score, f"no prompt of {prompt_set!r} could measure it"))
            continue
        interval = None
        if low is not None and high is not None and not np.isnan(low[row, head]):
            interval = Interval(low=float(low[row, head]), high=float(high[row, head]))
        n = len(measured) if per_prompt is not None else int(data.attrs["prompts"])
        source = str(data.attrs.get("prompt_set", prompt_set)) if score in ("copying", "importance") else prompt_set
        table[row, head] = Measured(
            value=float(measured.mean()), n=n, units=array.attrs["units"], prompt_set=source, interval=interval
        )
    return table


def _record(
    info: ModelInfo, layer: int, head: int, evidence: Mapping[str, np.ndarray], rules: Sequence[Rule]
) -> HeadRecord:
    scores: dict[str, Evidence] = {name: table[info.rows[layer], head] for name, table in evidence.items()}
    values = {name: item.value for name, item in scores.items() if isinstance(item, Measured)}
    labels = [
        Label(
            name=rule.label,  # type: ignore[arg-type]
            rule=rule.name,
            score=rule.score,
            value=values[rule.score],
            threshold=rule.threshold,
            comparison=rule.comparison,
            citation=rule.citation,
        )
        for rule in classify(values, rules)
    ]
    return HeadRecord(
        layer=layer,
        head=head,
        kv_head=info.kv_head(head),
        scores=scores,  # type: ignore[arg-type]
        labels=tuple(labels) or (Label(name="unclassified", rule="no rule holds"),),
    )


def _sink_rates(sets: Sequence[xr.Dataset]) -> dict[int, Evidence]:
    rates: dict[int, Evidence] = {}
    for data in sets:
        for length in data.length.values.tolist() if "sink_rate" in data else ():
            prompts = int(data.sink_rate_prompts.sel(length=length))
            if length in rates or not prompts:
                continue
            value = float(data.sink_rate.sel(length=length).mean())
            name = str(data.attrs.get("prompt_set", "text"))
            rates[length] = Measured(value=value, n=prompts, units="percent", prompt_set=name)
    return rates


def _sinks(text: xr.Dataset | None, decode_token: Callable[[int], str]) -> tuple[SinkToken, ...]:
    if text is None or "sink_position" not in text:
        return ()
    return tuple(
        SinkToken(
            layer=sink.layer,
            position=sink.position,
            token=decode_token(sink.token_id),
            token_id=sink.token_id,
            prompts=sink.prompts,
            received=sink.received,
        )
        for sink in sink_tokens(text)[:MAX_SINKS]
    )


def _outliers(text: xr.Dataset | None) -> tuple[OutlierDimension, ...]:
    if text is None or "residual_mean_abs" not in text:
        return ()
    return tuple(
        OutlierDimension(dimension=d, mean_abs=mean, ratio=ratio)
        for d, mean, ratio in outlier_dimensions(text)[:MAX_OUTLIERS]
    )
