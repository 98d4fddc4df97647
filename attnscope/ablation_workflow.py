"""The job of `attnscope ablate`: chosen heads stop, and what a task loses, beside random other heads."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .core.ablation_report import AblationResult, write_ablation
from .core.errors import TaskError, UnknownHeadError, UnknownNameError
from .core.ids import HeadId
from .core.track import Track, counted, silent
from .edits.uniform_attention import UniformAttention
from .engine.ablations import random_others
from .engine.reference import measure_reference
from .engine.sweep.alternatives import Alternative, Fixed, FromEdit, OtherPrompts, Zero
from .engine.sweep.run import sweep
from .engine.sweep.units import heads_as_units
from .models._loading import load, require_causal
from .provenance import provenance
from .reports.ablation import ablated_metric
from .tasks import tasks as registry

if TYPE_CHECKING:
    from .models._base import Scope

Mode = Literal["zero", "mean", "resample", "uniform", "static"]
MODES: tuple[Mode, ...] = get_args(Mode)
LOWER_IS_BETTER = frozenset({"loss", "kl"})


def read_heads(text: str) -> tuple[HeadId, ...]:
    """Read heads with commas or spaces between them, each once.

    Raises:
        UnknownHeadError: none, or a name that is no head's.

    Example:
        >>> read_heads("L3H0, L3H2")
        (L3H0, L3H2)
    """
    found = tuple(dict.fromkeys(HeadId.parse(part) for part in re.split(r"[\s,]+", text.strip()) if part))
    if not found:
        raise UnknownHeadError("heads to ablate", found="none", expected="names such as L3H0,L3H2")
    return found


def ablate(
    heads: tuple[HeadId, ...],
    scope: Scope | None = None,
    *,
    mode: Mode = "zero",
    task: str = "needle",
    prompts: int = 32,
    draws: int = 5,
    seed: int = 0,
    out: str | Path | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> AblationResult:
    """Stop heads together and measure what a task loses, beside as many random other heads of the same layers.

    Args:
        heads: query heads.
        scope: a loaded causal transformers model; None loads the embedded one.
        mode: what takes a head's place: zero, its mean over the prompts' tokens, its output on another prompt of the
            same length, uniform attention, or its mean pattern by distance (static).
        task: a prompt set with answers, or one of texts (then the loss is measured).
        prompts: how many.
        draws: random controls.
        seed: of prompts and controls.
        out: write the result there as JSON.
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most.
        track: progress.
        command: recorded in the provenance.

    Raises:
        UnknownHeadError: no heads, or the model lacks one.
        UnknownNameError: no such mode or task.
        TaskError: the task's prompts cannot be made, or the model has no tokenizer.
        UnsupportedModelError: the model is not causal.
        OutputError: something else stands at `out`.

    Example:
        >>> ablate((HeadId(7, 0),), task="recall", prompts=4, draws=1).metrics[0].name
        'accuracy'
    """
    if mode not in MODES:
        raise UnknownNameError(f"ablation mode {mode!r}", expected=f"one of {', '.join(MODES)}")
    scope, track = scope or load(), track or silent
    require_causal(scope, "ablation")
    chosen = tuple(scope.info.check(head) for head in heads)
    if not chosen:
        raise UnknownHeadError("heads to ablate", found="none", expected="at least one")
    made, rows = _prompts(scope, task, prompts, seed)
    rows, notes = _with_partners(rows) if mode == "resample" else (rows, ())
    chooser = np.random.default_rng(seed)
    drawn = [random_others(scope.info, chosen, chooser) for _ in range(draws)]
    controls = [tuple(others) for others, _ in drawn if others]
    with track("Reference", 1):
        alternative = _alternative(scope, mode, rows, seed, implementation, batch_tokens)
    metrics = _metrics(rows)
    with track(f"Ablating on {task}", len(rows) * (1 + len(controls))) as advance:
        found = sweep(
            scope,
            rows,
            [heads_as_units(part) for part in (chosen, *controls)],
            metrics=metrics,
            alternative=alternative,
            implementation=implementation,
            batch_tokens=batch_tokens,
            progress=counted(advance),
        )
    result = AblationResult(
        model=scope.info,
        task=task,
        n_prompts=len(rows),
        mode=mode,
        heads=tuple(map(str, chosen)),
        metrics=tuple(
            ablated_metric(
                metric,
                found.baseline[metric],
                found.values[metric][:, 0],
                found.values[metric][:, 1:].T if controls else None,
                found.units[metric],
                metric not in LOWER_IS_BETTER,
            )
            for metric in metrics
        ),
        layer_matched=all(matched for _, matched in drawn),
        provenance=provenance(scope, seed, {task: (made, rows)}, [implementation], command, notes),
        notes=notes,
    )
    if out is not None:
        write_ablation(out, result)
    return result


def _prompts(scope: Scope, task: str, n: int, seed: int) -> tuple[Any, Any]:
    if scope.tokenizer is None:
        raise TaskError("ablation", found="a model without a tokenizer", expected="one", fix="Pass --tokenizer.")
    kind = registry.get(task)
    fields = kind.__dataclass_fields__
    made = kind(**{name: value for name, value in {"n": n, "seed": seed}.items() if name in fields})
    rows = made.build(scope.tokenizer)
    return made, rows.select(range(min(n, len(rows))))


def _with_partners(rows: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the prompts that have another of their length, and what to say of the others."""
    shapes = [(len(row["input_ids"]), len(row.get("answer_ids", ()))) for row in rows]
    counts = Counter(shapes)
    kept = [i for i, shape in enumerate(shapes) if counts[shape] > 1]
    left = len(shapes) - len(kept)
    if not kept:
        raise TaskError(
            "resample ablation",
            found=f"{left} prompts of different lengths",
            expected="prompts of one length",
            fix="Ask for more prompts, or use the mode mean.",
        )
    return rows.select(kept), (f"{left} prompts without another of their length were left out.",) if left else ()


def _metrics(rows: Any) -> list[str]:
    columns = set(rows.column_names)
    if "answer_ids" not in columns:
        return ["loss"]
    return ["accuracy", "log_probability", *(["logit_difference"] if "wrong_ids" in columns else [])]


def _alternative(scope: Scope, mode: Mode, rows: Any, seed: int, implementation: str, batch_tokens: int) -> Alternative:
    if mode == "zero":
        return Zero()
    if mode == "resample":
        return OtherPrompts(seed)
    if mode == "uniform":
        return FromEdit(UniformAttention, "uniform")
    found = measure_reference(
        scope, rows, patterns=mode == "static", implementation=implementation, batch_tokens=batch_tokens
    )
    if mode == "static":
        return FromEdit(found.static_attention, "static")
    return Fixed({("z", layer): mean for layer, mean in found.heads.items()})
