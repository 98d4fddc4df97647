"""The IOI experiments of 2211.00593: which heads path patching finds, and what the published circuit keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .analyses.ioi_circuit import IOI_CIRCUIT, IOI_POSITIONS, IOI_SHAPE, found_on_top
from .core.report import Missing
from .core.track import Track
from .core.units import Unit
from .engine.sweep.run import sweep
from .engine.sweep.template_means import template_means
from .engine.sweep.units import units_of
from .tasks.ioi import IOI
from .verify_circuit_parts import METRIC, CircuitChecks, findings, path_changes
from .verify_measures import Findings

if TYPE_CHECKING:
    from .models._base import Scope

_LATE = "path patching with the name movers knocked out is not offered"


def ioi(scope: Scope, plan: CircuitChecks, track: Track) -> Findings:
    """Measure IOI: the logit difference, which heads path patching finds, and what the published circuit keeps.

    Raises:
        TaskError: the tokenizer leaves too few words.
        DeviceError: the device ran out of memory.
    """
    task = IOI(n=plan.prompts, seed=plan.seed)
    pairs = task.build(scope.tokenizer)
    values: dict[str, int | float | Missing] = {}
    with track("IOI: logit difference", 1) as advance:
        plain = sweep(scope, pairs, [(Unit("mlp", 0),)], metrics=METRIC, **plan.options).baseline[METRIC]
        values["logit_difference"], values["io_above_s"] = float(plain.mean()), 100 * float((plain > 0).mean())
        advance(1)
    shape = (scope.info.n_layers, scope.info.n_heads)
    names = ["name_movers", "negative_name_movers", "s_inhibition", "early_heads", "previous_token_heads"]
    if shape != IOI_SHAPE or len(scope.info.attention_layers) != shape[0]:
        reason = f"the published heads are those of 12 layers of 12 heads, this model has {shape[0]} of {shape[1]}"
        gaps = ("circuit_gap", "circuit_share", "circuit_logit_difference", "ablated_logit_difference")
        values |= dict.fromkeys((*(f"{name}_on_top" for name in names), *gaps), Missing(reason=reason))
    else:
        values |= _ioi_heads(scope, pairs, plan, track)
        values |= _ioi_circuit(scope, task, pairs, plan, float(plain.mean()))
    values["backup_name_movers_on_top"] = Missing(reason=_LATE)
    how = {
        "corrupt": "ABC",
        "path patching": "all positions, heads between held",
        "mean": f"{plan.per_template} a template",
    }
    return findings(scope, plan, values, how, {"ioi": (task, pairs)})


def _ioi_heads(scope: Scope, pairs: Any, plan: CircuitChecks, track: Track) -> dict[str, int | float | Missing]:
    """Return how many published heads of each class path patching ranks first."""
    movers, early = IOI_CIRCUIT["name mover"], (*IOI_CIRCUIT["induction"], *IOI_CIRCUIT["duplicate token"])
    with track("IOI: path patching", 4) as advance:
        logits = path_changes(scope, pairs, plan)
        advance(1)
        queries = path_changes(scope, pairs, plan, movers, "query")
        advance(2)
        inputs = path_changes(scope, pairs, plan, IOI_CIRCUIT["s-inhibition"], "value")
        advance(3)
        keys = path_changes(scope, pairs, plan, IOI_CIRCUIT["induction"], "key")
        advance(4)
    previous = IOI_CIRCUIT["previous token"]
    return {
        "name_movers_on_top": found_on_top(logits, movers, 3, "drop"),
        "negative_name_movers_on_top": found_on_top(logits, IOI_CIRCUIT["negative name mover"], 2, "rise"),
        "s_inhibition_on_top": found_on_top(queries, IOI_CIRCUIT["s-inhibition"], 4, "drop"),
        "early_heads_on_top": found_on_top(inputs, early, 7, "drop") / len(early),
        "previous_token_heads_on_top": found_on_top(keys, previous, 4, "drop") / len(previous),
    }


def _ioi_circuit(scope: Scope, task: IOI, pairs: Any, plan: CircuitChecks, whole: float) -> dict[str, float | Missing]:
    """Return F(C) with everything but the published heads, at their positions, replaced by its mean (2211.00593)."""
    reference = task.reference(scope.tokenizer, plan.per_template)
    kept = {head: IOI_POSITIONS[name] for name, heads in IOI_CIRCUIT.items() for head in heads}
    found = {}
    for name, own in (("circuit", kept), ("ablated", {})):
        means = template_means(scope, reference, own, **plan.options)
        run = sweep(scope, pairs, [units_of(scope, "head")], metrics=METRIC, alternative=means, **plan.options)
        found[f"{name}_logit_difference"] = float(run.values[METRIC].mean())
    circuit = found["circuit_logit_difference"]
    share = circuit / whole if whole else Missing(reason="the model's logit difference is 0")
    return {"circuit_gap": abs(whole - circuit), "circuit_share": share, **found}
