"""The job of `attnscope retrieval`: needles → retrieval heads by every measure → ablations → a report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .core.errors import TaskError
from .core.retrieval_report import RetrievalReport
from .core.stages import Stages
from .core.track import Track, silent
from .engine.accuracy import token_accuracy
from .engine.batches import check_prompts, fingerprint
from .models._loading import load, require_causal
from .provenance import provenance
from .reports.decode_plan import RECENT_TOKENS, SINK_TOKENS
from .reports.retrieval import agreements, cells, head_rows, ranked, settled
from .retrieval_parts import RetrievalParts
from .retrieval_plan import THRESHOLD, RetrievalPlan
from .tasks._answers import with_answers

if TYPE_CHECKING:
    from .models._base import Scope

NO_ANSWER = "the model answered 0 of {n} needles, so there is no trial to score"
WORDLESS = "the model has no tokenizer, so no needle can be written for it"


def retrieval_report(
    scope: Scope | None = None,
    plan: RetrievalPlan | None = None,
    *,
    out: str | Path | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> RetrievalReport:
    """Find retrieval heads by every published measure, and measure what is lost without them.

    Args:
        scope: a loaded causal model; None loads the embedded one.
        plan: what to measure.
        out: write a run folder there; an interrupted call goes on from `<out>.partial` when it is repeated.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        track: progress, see `core.track.Track`.
        command: recorded in the provenance.

    Raises:
        UnsupportedModelError: the model is not causal.
        TaskError: a length beyond the model's context, no tokenizer, or bad needles or haystack.
        DeviceError: the device ran out of memory.
        OutputError: `out` cannot be written or holds other files, or the finished parts are another job's.

    Example:
        >>> retrieval_report().ranking[:3]  # doctest: +SKIP
        ('L6H4', 'L7H0', 'L7H1')
    """
    from .core.retrieval_run import check_retrieval_run, write_retrieval_run

    target = None if out is None else check_retrieval_run(out)
    partial = None if target is None else target.with_name(f"{target.name}.partial")
    report, statistics = measure_retrieval(
        scope or load(),
        plan or RetrievalPlan(),
        partial=partial,
        implementation=implementation,
        batch_tokens=batch_tokens,
        track=track,
        command=command,
    )
    if target is not None and partial is not None:
        from .present.retrieval_html import retrieval_page

        write_retrieval_run(target, report, statistics, lambda: retrieval_page(report))
        shutil.rmtree(partial, ignore_errors=True)
    return report


def measure_retrieval(
    scope: Scope,
    plan: RetrievalPlan,
    *,
    partial: str | Path | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> tuple[RetrievalReport, dict[str, xr.Dataset]]:
    """Return the report and its statistics: `needle` (answered trials), `decoded`, `qrhead`, `razor`, `patterns`.

    Args:
        partial: keep finished parts there.

    Raises:
        As `retrieval_report`.
    """
    track, info = track or silent, scope.info
    require_causal(scope, "the retrieval report")
    if scope.tokenizer is None:
        raise TaskError("retrieval report", found=WORDLESS, expected="a tokenizer", fix="Pass --tokenizer.")
    options: dict[str, Any] = {"implementation": implementation, "batch_tokens": batch_tokens}
    grid = plan.grid(info)
    prompts, notes = grid.build_with_notes(scope.tokenizer)
    stages = Stages(partial, f"{info.model_dump_json()}{fingerprint(prompts)}{plan}")
    measured = RetrievalParts(scope, plan, stages, track, options)
    forced = with_answers(prompts)
    with track("Answering needles", sum(check_prompts(forced, info.context_length))) as advance:
        right = np.array(stages.keep("answered", list[float], lambda: _answered(scope, forced, options, advance))) == 1
    kept = np.flatnonzero(right)
    statistics: dict[str, xr.Dataset] = {}
    missing: dict[str, str] = {}
    if len(kept):
        statistics["needle"] = measured.needle(forced.select(kept))
    else:
        missing["retrieval"] = NO_ANSWER.format(n=len(prompts))
    if plan.decode_steps:
        statistics["decoded"] = measured.decoded(prompts)
        missing["retrieval_decoded"] = NO_ANSWER.format(n=len(prompts))
    else:
        missing["retrieval_decoded"] = "left out (decode_steps=0)"
    for name, scores_of, make in (
        ("qrhead", ("qr_score",), measured.qrhead),
        ("razor", ("razor_echo", "razor_induction"), measured.razor),
        ("patterns", ("vertical_slash_mass",), measured.patterns),
    ):
        try:
            statistics[name] = make()
        except TaskError as error:  # this vocabulary or text cannot make such prompts
            missing |= dict.fromkeys(scores_of, str(error))
    rows = head_rows(info, statistics, missing)
    scores = statistics["needle"].retrieval.values if len(kept) else np.zeros((0, 0, 0))
    ranking = ranked(info, scores)
    curve, without = measured.curve(forced.select(_spread(kept, plan.ablated)) if len(kept) else None, ranking, rows)
    budgets, unmeasured = measured.budgets(statistics)
    sets = {"needle": (grid, prompts), **measured.sets}
    report = RetrievalReport(
        model=info,
        n_needles=len(prompts),
        n_answered=len(kept),
        n_others=grid.others,
        cells=cells(prompts["length"], prompts["depth"], right),
        heads=rows,
        stability=settled(scores),
        agreements=agreements(rows, k=max(1, min(20, len(rows) // 8))),
        ranking=tuple(map(str, ranking)),
        threshold=THRESHOLD,
        curve=curve,
        curve_missing=without,
        budgets=budgets,
        budgets_missing=unmeasured,
        sink_tokens=SINK_TOKENS if budgets else None,
        recent_tokens=RECENT_TOKENS if budgets else None,
        provenance=provenance(scope, plan.seed, sets, _ran(statistics), command, notes),
        notes=notes,
    )
    return report, statistics


def _answered(scope: Scope, prompts: Any, options: dict[str, Any], advance: Any) -> list[float]:
    found = token_accuracy(scope, prompts, **options)
    advance(sum(map(len, prompts["input_ids"])))
    return [float(value) for value in found]


def _ran(statistics: dict[str, xr.Dataset]) -> list[str]:
    return [str(data.attrs["implementation"]) for data in statistics.values() if "implementation" in data.attrs]


def _spread(indices: np.ndarray, n: int) -> np.ndarray:
    """Return n of the indices at even steps, so that every length and depth is among them."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(n, len(indices))).round().astype(int))]
