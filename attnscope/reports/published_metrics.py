"""A report's numbers in the terms in which papers published theirs."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from ..core.report import Missing
from ..core.sink_report import ResidualEvidence, ResidualSinks, SinkReport
from .comparison import Values


def secondary_values(report: SinkReport) -> Values:
    """Return the metrics of `secondary-sinks`; layers and tokens are the commonest, with their share of all."""
    values: dict[str, int | float | Missing] = {"layers": report.model.n_layers}
    for place, name in enumerate(("primary_first_layer", "primary_lifetime")):
        primary = report.primary_layers
        values[name] = Missing(reason="no primary sink was found") if primary is None else primary[place]
    found = [sink for sink in report.of_kind("secondary") if isinstance(sink.residual, ResidualEvidence)]
    values["secondaries"] = len(found)
    read = {
        "secondary_first_layer": [sink.residual.first_layer for sink in found],  # type: ignore[union-attr]
        "secondary_lifetime": [sink.residual.lifetime for sink in found],  # type: ignore[union-attr]
        "secondary_token": [sink.token_id for sink in found],
    }
    for name, each in read.items():
        if not each:
            values[name] = values[f"{name}_share"] = Missing(
                reason=f"no secondary sink was found in {report.n_prompts} prompts"
            )
            continue
        commonest, count = Counter(each).most_common(1)[0]
        values[name], values[f"{name}_share"] = commonest, count / len(each)
    return values


def residual_values(found: ResidualSinks | Missing) -> Values:
    """Return the metrics of `residual-sinks`, over the inputs of attention and MLP norms (not the final norm).

    Scores and weights are medians over norms; a change of perplexity is exp(change of loss) - 1, in percent.
    """
    names = ("dimension", "reads", "norm_reads", "score", "argmax_hit", "mlp_weight")
    effects = ("mean", "zero", "direct_zero", "denom_zero")
    if isinstance(found, Missing):
        return dict.fromkeys((*names, *(f"perplexity_{name}" for name in effects)), found)
    reads = [read for read in found.reads if read.read in ("attention", "mlp")]
    values: dict[str, int | float | Missing] = dict.fromkeys(names, Missing(reason="no norm reads the residual stream"))
    if reads:
        dimension, count = Counter(read.argmax for read in reads).most_common(1)[0]
        values |= {"dimension": dimension, "reads": count, "norm_reads": len(reads)}
        values["score"] = float(np.median([read.score for read in reads]))
        values["argmax_hit"] = float(np.median([read.argmax_hit for read in reads]))
        weights = [read.weight for read in reads if read.read == "mlp" and read.weight is not None]
        values["mlp_weight"] = float(np.median(weights)) if weights else Missing(reason="no MLP norm was read")
    if not found.dimensions:
        values["mlp_weight"] = Missing(reason="no residual sink dimension was found")
    changes = {effect.intervention: effect.loss_change for effect in found.interventions}
    reason = "not tested" if found.dimensions else "no residual sink dimension was found"
    for name in effects:
        change = changes.get(name, Missing(reason=reason))  # type: ignore[call-overload]
        values[f"perplexity_{name}"] = change if isinstance(change, Missing) else _percent(change.value)
    return values


def _percent(change: float) -> float | Missing:
    return 100 * math.expm1(change) if change < 700 else Missing(reason="the perplexity overflows")
