"""Which positions are sinks in the residual stream, and who wrote each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .analyses.residual_runs import Run, Thresholds
from .analyses.sink_writers import contributions, cosine, minimal_neurons
from .core.errors import UnsupportedModelError
from .core.sink_report import Writer
from .engine.sink_vectors import Vectors, neuron_writes, vectors
from .reports.sinks import Evidence

if TYPE_CHECKING:
    from .models._base import Scope

MOST_RUNS = 256
"""Sinks whose vectors are read; the largest norm ratios come first."""


def find_writers(
    scope: Scope, prompts: Any, found: list[Run], thresholds: Thresholds, options: dict[str, Any]
) -> tuple[list[Evidence], list[str]]:
    """Return the runs that point along their prompt's primary direction, with who wrote them, and notes.

    Args:
        scope: a loaded model.
        prompts: with a column `input_ids`.
        found: runs of `analyses.residual_runs.runs`.
        thresholds: what counts.
        options: `implementation` and `batch_tokens`.

    Raises:
        DeviceError: the device ran out of memory.
    """
    notes: list[str] = []
    kept = sorted(found, key=lambda run: -run.ratio)[:MOST_RUNS]
    if len(found) > len(kept):
        notes.append(f"Writers are known for the {MOST_RUNS} largest of {len(found)} sinks; the others are left out.")
    if not kept:
        return [], notes
    kept.sort(key=lambda run: (run.prompt, run.position, run.first))
    where = [(run.prompt, run.position) for run in kept]
    try:
        read = vectors(scope, prompts, where, **options)
    except UnsupportedModelError as error:
        notes.append(f"Who writes sinks is not known: {error}")
        read = vectors(scope, prompts, where, writes=False, **options)
    primary = _primaries(kept)
    evidence, aside = [], 0
    for k, run in enumerate(kept):
        leader = primary[run.prompt]
        direction = read.outputs[leader, kept[leader].first]
        along = [abs(cosine(read.outputs[k, layer], direction)) for layer in range(run.first, run.first + run.lifetime)]
        if np.mean(along) <= thresholds.cosine and thresholds.mode == "relative":
            aside += 1
            continue
        evidence.append(_written(run, float(np.mean(along)), read, k, leader, direction))
    if aside:
        notes.append(f"{aside} positions have a large residual norm in another direction than their prompt's sink.")
    return _with_neurons(scope, prompts, evidence, read, kept, options["implementation"], notes), notes


def _primaries(kept: Sequence[Run]) -> dict[int, int]:
    """Return, for each prompt, the run that gives the direction: a primary one where there is one."""
    best: dict[int, int] = {}
    for k, run in enumerate(kept):
        now = best.get(run.prompt)
        rank = (run.kind == "primary", run.lifetime, run.ratio)
        if now is None or rank > (kept[now].kind == "primary", kept[now].lifetime, kept[now].ratio):
            best[run.prompt] = k
    return best


def _written(run: Run, along: float, read: Vectors, k: int, leader: int, direction: np.ndarray) -> Evidence:
    if read.attention is None or read.mlp is None:
        return Evidence(run, along)
    written = contributions(read.embedding[k], read.attention[k], read.mlp[k], read.outputs[k, run.first], run.first)
    most = max(written, key=lambda one: one.along)
    source = {"embedding": read.embedding, "attention": read.attention, "mlp": read.mlp}[most.module]
    own = source[k] if most.module == "embedding" else source[k, most.layer]
    same = source[leader] if most.module == "embedding" else source[leader, most.layer]
    writer = Writer(
        module=most.module,
        layer=most.layer,
        share=most.share,
        cosine_to_direction=cosine(own, direction),
        cosine_to_primary_write=None if k == leader else cosine(own, same),
        output_norm=float(np.linalg.norm(own)),
        neurons=None,
    )
    return Evidence(run, along, writer, tuple(written))


def _with_neurons(
    scope: Scope,
    prompts: Any,
    evidence: list[Evidence],
    read: Vectors,
    kept: Sequence[Run],
    implementation: str,
    notes: list[str],
) -> list[Evidence]:
    chosen = [
        (i, one.writer) for i, one in enumerate(evidence) if one.writer is not None and one.writer.module == "mlp"
    ]
    if not chosen:
        return evidence
    own = [evidence[i].run for i, _ in chosen]
    outputs = np.stack([read.outputs[kept.index(run), run.first] for run in own])
    directions = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    where, layers = [(run.prompt, run.position) for run in own], [writer.layer for _, writer in chosen]
    try:
        found = neuron_writes(scope, prompts, where, layers, directions, implementation=implementation)
    except UnsupportedModelError as error:
        notes.append(f"The neurons that write sinks are not known: {error}")
        return evidence
    for (i, writer), along in zip(chosen, found, strict=True):
        evidence[i] = replace(evidence[i], writer=writer.model_copy(update={"neurons": minimal_neurons(along)}))
    return evidence
