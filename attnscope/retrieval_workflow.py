"""The job of `attnscope retrieval`: needles → retrieval heads by every measure → ablations → a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .core.retrieval_report import RetrievalReport
from .core.stages import Stages
from .core.track import Track, silent
from .engine.accuracy import token_accuracy
from .engine.batches import check_prompts, fingerprint
from .models._loading import load, require_causal
from .provenance import provenance
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
    partial: str | Path | None = None,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    track: Track | None = None,
    command: str | None = None,
) -> tuple[RetrievalReport, dict[str, xr.Dataset]]:
    """Find retrieval heads by every published measure, and measure what is lost without them.

    Args:
        scope: a loaded causal model; None loads the embedded one.
        plan: what to measure.
        out: write a run folder there; an interrupted call goes on from `<out>.partial` when it is repeated.
        partial: keep finished parts there instead.
        implementation: kernel implementation.
        batch_tokens: padded tokens a batch at most.
        track: progress, see `core.track.Track`.
        command: recorded in the provenance.

    Returns:
        The report, and the statistics that it was built from: `needle` (answered trials), `decoded`, `qrhead`,
        `razor`, `patterns`.

    Raises:
        UnsupportedModelError: the model is not causal.
        TaskError: a length beyond the model's context, no tokenizer, or bad needles or haystack.
        DeviceError: the device ran out of memory.
        OutputError: `out` cannot be written or holds other files, or the finished parts are another job's.

    Example:
        >>> report, _ = retrieval_report()  # doctest: +SKIP
        >>> report.ranking[:3]  # doctest: +SKIP
        ('L6H4', 'L7H0', 'L7H1')
    """
    from .core.errors import TaskError
    from .core.retrieval_run import check_retrieval_run, write_retrieval_run

    scope, plan, track = scope or load(), plan or RetrievalPlan(), track or silent
    require_causal(scope, "the retrieval report")
    if scope.tokenizer is None:
        raise TaskError("retrieval report", found=WORDLESS, expected="a tokenizer", fix="Pass --tokenizer.")
    if out is not None:
        target = check_retrieval_run(out)
        partial = partial or target.with_name(f"{target.name}.partial")
    info, options = scope.info, {"implementation": implementation, "batch_tokens": batch_tokens}
    grid = plan.grid(info)
    prompts, notes = grid.build_with_notes(scope.tokenizer)
    stages = Stages(partial, f"{info.model_dump_json()}{fingerprint(prompts)}{plan}")
    forced = with_answers(prompts)
    measured = RetrievalParts(scope, plan, stages, track, options)
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
        if not (statistics["decoded"].answer_recall > 0.5).any():
            missing["retrieval_decoded"] = NO_ANSWER.format(n=len(prompts))
    else:
        missing["retrieval_decoded"] = "left out (decode_steps=0)"
    statistics |= {"qrhead": measured.qrhead(), "razor": measured.razor(), "patterns": measured.patterns()}
    rows = head_rows(info, statistics, missing)
    scores = statistics["needle"].retrieval.values if len(kept) else np.zeros((0, 0, 0))
    ranking = ranked(info, scores)
    curve, without = measured.curve(forced.select(kept[: plan.ablated]) if len(kept) else None, ranking, rows)
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
        budgets_missing="this report does not measure it",
        provenance=provenance(
            scope, plan.seed, {"needle": (grid, prompts), **measured.sets}, _ran(statistics), command, notes
        ),
        notes=notes,
    )
    if out is not None:
        from .present.retrieval_html import retrieval_page

        write_retrieval_run(out, report, statistics, lambda: retrieval_page(report))
        stages.clear()
    return report, statistics


def _answered(scope: Scope, prompts: Any, options: dict[str, Any], advance: Any) -> list[float]:
    found = token_accuracy(scope, prompts, **options)
    advance(sum(map(len, prompts["input_ids"])))
    return [float(value) for value in found]


def _ran(statistics: dict[str, xr.Dataset]) -> list[str]:
    return [str(data.attrs["implementation"]) for data in statistics.values() if "implementation" in data.attrs]
