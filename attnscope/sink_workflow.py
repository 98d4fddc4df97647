"""The job of `attnscope sinks`: prompts → sinks, levels, writers, tests of the writes, residual sinks → a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .analyses.residual_runs import Run, Thresholds, runs
from .analyses.sink_writers import contributions, cosine, minimal_neurons
from .core.errors import UnsupportedModelError
from .core.report import Missing
from .core.sink_report import CurvePoint, Estimate, ResidualSinks, SinkReport, Writer, WriteTest
from .core.sink_run import check_sink_run, write_sink_run
from .core.track import Track, silent
from .engine.batches import check_prompts
from .engine.loss import next_token_loss
from .engine.residual_sinks import residual_sinks
from .engine.sink_heads import sink_shares
from .engine.sink_trace import trace
from .engine.sink_vectors import Vectors, neuron_writes, vectors
from .engine.sink_writes import write_effects
from .models._loading import load, require_causal
from .provenance import provenance
from .report_plan import ReportPlan
from .reports.sinks import Evidence, attention_sinks, estimate, head_services, joined, level_ids, weakening
from .tasks.random_tokens import RandomTokens
from .tasks.text import Text

if TYPE_CHECKING:
    from .models._base import Scope

MOST_RUNS = 256
"""Sinks whose vectors are read; the largest norm ratios come first."""
TESTED_LEVELS, TESTED_PROMPTS, RESIDUAL_PROMPTS = 2, 8, 4
"""Levels whose writes are tested, prompts for that, and prompts for residual sinks, whose dimensions are the same
everywhere."""


@dataclass(frozen=True)
class SinkPlan:
    """What a sink report measures.

    Attributes:
        text: see `tasks.text.Text`; None takes the embedded English.
        context: tokens a prompt; None takes 512 or the model's limit.
        prompts: at most.
        mode: thresholds, `relative` or the `paper`'s; see `analyses.residual_runs.Thresholds`.
        seed: of controls and random tokens.
        draws: random controls of each test.
        interventions: whether writes and dimensions are tested by changing them.
    """

    text: str | None = None
    context: int | None = None
    prompts: int = 16
    mode: Literal["relative", "paper"] = "relative"
    seed: int = 0
    draws: int = 10
    interventions: bool = True


def sink_report(
    scope: Scope | None = None,
    plan: SinkPlan | None = None,
    *,
    out: str | Path | None = None,
    prompts: Any = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> SinkReport:
    """Find attention sinks and residual sinks, who writes them, and what they are for.

    Args:
        scope: a loaded causal model; None loads the embedded one.
        plan: what to measure.
        out: write a run folder there.
        prompts: your own `datasets.Dataset` with `input_ids`.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        track: progress, see `workflow.Track`.
        command: recorded in the provenance.

    Raises:
        UnsupportedModelError: the model is not causal.
        TaskError: the text is missing, empty, too short or too long; or hidden states overflow the dtype.
        DeviceError: the device ran out of memory.
        OutputError: `out` cannot be written or holds other files.

    Example:
        >>> import attnscope
        >>> sink_report().of_kind("primary")[0].position  # doctest: +SKIP
        0
    """
    scope, plan = scope or load(), plan or SinkPlan()
    track = track or silent
    require_causal(scope, "the sink report")
    if out is not None:
        check_sink_run(out)
    task = _task(plan, scope)
    chosen = task.build(scope.tokenizer) if prompts is None else prompts
    lengths = check_prompts(chosen, scope.info.context_length)
    options: dict[str, Any] = {"implementation": implementation, "batch_tokens": batch_tokens}
    thresholds = Thresholds(mode=plan.mode)
    with track("Tracing sinks", sum(lengths)) as advance:
        traced = trace(scope, chosen, **options, progress=lambda done, _: advance(done))
    found, untold = runs(traced, thresholds)
    notes = [f"Prompt {prompt}: {reason}." for prompt, reason in untold.items()]
    with track("Reading who writes them", 1):
        evidence = _evidence(scope, chosen, found, thresholds, notes, options)
    decode = scope.tokenizer.decode if scope.tokenizer is not None else str
    sinks, levels = joined(traced, evidence, untold, thresholds, chosen["input_ids"], decode)
    services = _services(scope, chosen, [one.run for one in evidence], attention_sinks(traced, thresholds), options)
    losses, without_head = _losses(scope, chosen, options)
    tests: tuple[WriteTest, ...] = ()
    if plan.interventions and without_head is None:
        with track("Testing writes", 1):
            tests = _tests(scope, chosen, evidence, thresholds, plan, options)
    residual = _residual_sinks(scope, chosen, plan, without_head, track, options)
    if len(lengths) > RESIDUAL_PROMPTS:
        notes.append(f"Residual sinks are measured on the first {RESIDUAL_PROMPTS} of {len(lengths)} prompts.")
    bos = scope.info.bos_token_id
    if bos is not None and any(ids[0] != bos for ids in chosen["input_ids"]):
        notes.append("Some prompts do not begin with BOS: their primary sink, if any, is an ordinary token.")
    primary = Counter((e.run.first, e.run.lifetime) for e in evidence if e.run.kind == "primary").most_common(1)
    report = SinkReport(
        model=scope.info,
        mode=plan.mode,
        thresholds=asdict(thresholds),
        n_prompts=len(lengths),
        n_tokens=sum(lengths),
        loss=estimate(losses, without_head or "no prompt has a second token"),
        primary_layers=primary[0][0] if primary else None,
        levels=levels,
        sinks=sinks,
        heads=services,
        weakening=weakening(traced, sinks),
        writes=tests,
        residual_sinks=residual,
        provenance=provenance(
            scope,
            plan.seed,
            {"text": (task if prompts is None else None, chosen)},
            [traced.attrs["implementation"]],
            command,
        ),
        notes=tuple(notes),
    )
    if out is not None:
        from .present.sink_html import sink_page

        write_sink_run(out, report, {"trace": traced}, lambda: sink_page(report))
    return report


def _task(plan: SinkPlan, scope: Scope) -> Any:
    length = ReportPlan(context=plan.context).context_for(scope.info)
    if scope.tokenizer is None and scope.info.weights == "random" and plan.text is None:
        info = scope.info
        return RandomTokens(
            n=plan.prompts, length=length, seed=plan.seed, vocab_size=info.vocab_size, bos_token_id=info.bos_token_id
        )
    return Text(plan.text, n=plan.prompts, length=length)


def _losses(scope: Scope, prompts: Any, options: dict[str, Any]) -> tuple[np.ndarray, str | None]:
    try:
        return next_token_loss(scope, prompts, **options), None
    except UnsupportedModelError as error:
        return np.full(len(prompts), np.nan), str(error)


def _evidence(
    scope: Scope, prompts: Any, found: list[Run], thresholds: Thresholds, notes: list[str], options: dict[str, Any]
) -> list[Evidence]:
    """Return the runs that point along their prompt's primary direction, with who wrote them."""
    kept = sorted(found, key=lambda run: -run.ratio)[:MOST_RUNS]
    if len(found) > len(kept):
        notes.append(f"Writers are known for the {MOST_RUNS} largest of {len(found)} sinks; the others are left out.")
    if not kept:
        return []
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
    return _with_neurons(scope, prompts, evidence, read, kept, options, notes)


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
    options: dict[str, Any],
    notes: list[str],
) -> list[Evidence]:
    chosen = [i for i, one in enumerate(evidence) if one.writer is not None and one.writer.module == "mlp"]
    if not chosen:
        return evidence
    runs_ = [evidence[i].run for i in chosen]
    outputs = np.stack([read.outputs[kept.index(run), run.first] for run in runs_])
    directions = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    layers = [evidence[i].writer.layer for i in chosen]  # type: ignore[union-attr]
    try:
        found = neuron_writes(
            scope,
            prompts,
            [(run.prompt, run.position) for run in runs_],
            layers,
            directions,
            implementation=options["implementation"],
        )
    except UnsupportedModelError as error:
        notes.append(f"The neurons that write sinks are not known: {error}")
        return evidence
    for i, along in zip(chosen, found, strict=True):
        writer = evidence[i].writer
        assert writer is not None
        evidence[i] = replace(evidence[i], writer=writer.model_copy(update={"neurons": minimal_neurons(along)}))
    return evidence


def _services(
    scope: Scope, prompts: Any, found: Sequence[Run], attended: Sequence[tuple[int, int]], options: dict[str, Any]
) -> Any:
    groups: list[dict[int, list[int]]] = [{}, {}, {}]
    kinds = {(run.prompt, run.position): run.kind for run in found}
    for prompt, position in sorted({*kinds, *attended}):
        index = {"primary": 0, "secondary": 1}.get(kinds.get((prompt, position), ""), 2)
        groups[index].setdefault(prompt, []).append(position)
    shares, dormant = sink_shares(scope, prompts, groups, **options)
    present = [[prompt in group for prompt in range(len(prompts))] for group in groups[:2]]
    return head_services(scope.info, shares, dormant, present)


def _tests(
    scope: Scope,
    prompts: Any,
    evidence: Sequence[Evidence],
    thresholds: Thresholds,
    plan: SinkPlan,
    options: dict[str, Any],
) -> tuple[WriteTest, ...]:
    ids = level_ids([one.run for one in evidence])
    tests = []
    for (first, lifetime), index in list(ids.items())[:TESTED_LEVELS]:
        own = [one for one in evidence if (one.run.first, one.run.lifetime) == (first, lifetime) and one.writer]
        writers = Counter((one.writer.module, one.writer.layer) for one in own if one.writer).most_common(1)
        if not writers or writers[0][0][0] == "embedding":
            continue
        (module, layer), _ = writers[0]
        mine = [one for one in own if one.writer and (one.writer.module, one.writer.layer) == (module, layer)]
        rows = sorted({one.run.prompt for one in mine})[:TESTED_PROMPTS]
        placed = [replace(one.run, prompt=rows.index(one.run.prompt)) for one in mine if one.run.prompt in rows]
        neurons = next((one.writer.neurons for one in mine if one.writer and one.writer.neurons), None)
        effects = write_effects(
            scope,
            prompts.select(rows),
            placed,
            layer,
            module,  # type: ignore[arg-type]
            float(np.median([one.writer.output_norm for one in mine if one.writer])),
            thresholds=thresholds,
            neurons=neurons,
            draws=plan.draws,
            seed=plan.seed,
            **options,
        )
        change = estimate(effects.without, "no prompt has a second token")
        if not isinstance(change, Estimate):
            continue
        tests.append(
            WriteTest(
                level=index,
                layer=layer,
                module=module,
                curve=tuple(CurvePoint(**asdict(point)) for point in effects.curve),
                neurons_removed=effects.neurons,
                loss_without_neurons=_mean(effects.without_neurons, effects.curve),
                loss_change=change,
                control_changes=tuple(float(v) for v in effects.random_writes.mean(1)),
                random_positions_changes=tuple(float(v) for v in effects.random_positions.mean(1)),
            )
        )
    return tuple(tests)


def _mean(change: np.ndarray | None, curve: Sequence[Any]) -> float | None:
    if change is None:
        return None
    return float(change.mean()) + next(point.loss for point in curve if point.factor == 1.0)


def _residual_sinks(
    scope: Scope, prompts: Any, plan: SinkPlan, without_head: str | None, track: Track, options: dict[str, Any]
) -> ResidualSinks | Missing:
    asked = plan.interventions and without_head is None
    chosen = prompts.select(range(min(RESIDUAL_PROMPTS, len(prompts))))
    with track("Residual sinks", 100) as advance:
        return residual_sinks(
            scope,
            chosen,
            mode=plan.mode,
            draws=plan.draws,
            interventions=asked,
            seed=plan.seed,
            progress=lambda done, total: advance(100 * done // total),
            **options,
        )
