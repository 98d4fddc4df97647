"""How well cheap choices of keys do, what tasks share, and what a frequency report found in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.frequency_report import Choice, FrequencyReport
from ...core.report import Missing
from ...core.sink_report import Estimate
from .frequency import chunk_curves
from .sink_heads import Point, point

BASELINE_NAMES = {
    "random": "Random keys",
    "recent": "Recent keys",
    "stream": "First 4 and recent keys",
    "snapkv": "SnapKV",
}
PAPER_CHUNKS = 64
MODEL_PAIRS = {"rotate_half": "(i, i + d/2)", "interleaved": "(2i, 2i + 1)", "adjacent": "(2i, 2i + 1)"}


@dataclass(frozen=True)
class ChoiceLine:
    """One way to choose keys at every budget.

    Attributes:
        kind: `baseline`, `control` (random chunks) or `chunks`.
        points: agreement, one a budget.
        paper: percent in the paper for the same way, with the same share of a head's chunks; None where it has none.
    """

    method: str
    title: str
    kind: str
    budgets: tuple[int, ...]
    points: tuple[Point, ...]
    paper: float | None


@dataclass(frozen=True)
class OverlapMatrix:
    """Overlap of dominant chunks between tasks, a symmetric matrix; the diagonal compares halves of one task."""

    tasks: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    size: int
    chance: float


def choice_lines(report: FrequencyReport) -> list[ChoiceLine]:
    """Return every method in the report's order; none where nothing was tried."""
    methods: dict[str, list[Choice]] = {}
    for choice in report.choices:
        methods.setdefault(choice.method, []).append(choice)
    return [
        ChoiceLine(
            method=method,
            title=method_title(method, rows[0].chunks, report.n_chunks),
            kind=_kind(method),
            budgets=tuple(row.budget for row in rows),
            points=tuple(point(row.agreement) for row in rows),
            paper=_paper(report, method, rows[0].chunks),
        )
        for method, rows in methods.items()
    ]


def method_title(method: str, chunks: int | None, n_chunks: int) -> str:
    """Return a method's name in charts.

    Example:
        >>> method_title("chunks 8", 8, 32), method_title("random chunks 8", 8, 32), method_title("recent", None, 32)
        ('8 of 32 chunks', '8 random chunks', 'Recent keys')
    """
    if chunks is None:
        return BASELINE_NAMES.get(method, method)
    return f"{chunks} random chunks" if method.startswith("random") else f"{chunks} of {n_chunks} chunks"


def overlap_matrix(report: FrequencyReport) -> OverlapMatrix | None:
    """Return the matrix; None where there is nothing to compare."""
    held = {frozenset((one.task, one.other)): one.overlap for one in report.overlaps}
    if all(value is None for value in held.values()):
        return None
    return OverlapMatrix(
        tasks=report.tasks,
        values=tuple(tuple(held.get(frozenset((a, b))) for b in report.tasks) for a in report.tasks),
        size=report.overlap_size,
        chance=report.overlaps[0].chance,
    )


def frequency_headline(report: FrequencyReport) -> str:
    """Return one sentence: how many of a head's top keys its dominant chunks find.

    Example:
        `16 of 32 frequency chunks find 69% of a head's top 32 keys`
    """
    best = report.choice(f"chunks {max(report.sizes)}")
    if best is None or isinstance(best.agreement, Missing):
        return f"{report.n_chunks} frequency chunks a head; how well they choose keys was not measured"
    few = f"{best.chunks} of {report.n_chunks} frequency chunks"
    return f"{few} find {best.agreement.value:.0%} of a head's top {best.budget} keys"


def frequency_sentences(report: FrequencyReport) -> list[str]:
    """Return what was found, in plain words, the most important first; plain text."""
    found = [_rivals(report), _control(report), _dominant(report), _waves(report), _tasks(report), _pairs(report)]
    return [sentence for sentence in found if sentence]


def _rivals(report: FrequencyReport) -> str:
    most = max(report.sizes)
    margins = [m for m in report.margins if m.chunks == most and not m.baseline.startswith("random")]
    measured = [(m, m.difference) for m in margins if isinstance(m.difference, Estimate)]
    if not measured:
        return ""
    budgets = ", ".join(str(budget) for budget in sorted({m.budget for m, _ in measured}))
    names = [BASELINE_NAMES[name].lower() for name in dict.fromkeys(m.baseline for m, _ in measured)]
    rivals = f"{', '.join(names[:-1])} and {names[-1]}".replace("snapkv", "SnapKV")
    worst, least = min(measured, key=lambda one: one[1].value)
    if least.value > 0:
        return (
            f"They beat {rivals} at every budget ({budgets} keys); the smallest lead is {least.value:.0%} of the keys, "
            f"over {BASELINE_NAMES[worst.baseline].replace('Recent', 'recent').replace('First', 'first')} at "
            f"{worst.budget}."
        )
    lost = [f"{BASELINE_NAMES[m.baseline]} at {m.budget}" for m, difference in measured if difference.value <= 0]
    return f"They do not beat {', '.join(lost)}."


def _control(report: FrequencyReport) -> str:
    most = max(report.sizes)
    own, random = report.choice(f"chunks {most}"), report.choice(f"random chunks {most}")
    if own is None or random is None or isinstance(own.agreement, Missing) or isinstance(random.agreement, Missing):
        return ""
    return f"As many random chunks find {random.agreement.value:.0%}."


def _dominant(report: FrequencyReport) -> str:
    if report.dominant_share is None or report.chance is None:
        return ""
    return (
        f"{report.dominant_share:.1%} of all chunks alone find more than {report.dominant_threshold:.0%} of their "
        f"head's top {report.budget} keys, where random keys find {report.chance:.1%}. The paper says under 1%."
    )


def _waves(report: FrequencyReport) -> str:
    curves = chunk_curves(report)
    if len(curves) != 1 or curves[0].limit is None:
        return ""
    mean = [value if value is not None else -1.0 for value in curves[0].mean]
    best = mean.index(max(mean))
    return (
        f"Over all heads, chunk {best} finds most alone ({mean[best]:.0%}); its wavelength is {curves[0].waves[best]}."
    )


def _tasks(report: FrequencyReport) -> str:
    between = [one for one in report.overlaps if one.task != one.other and one.overlap is not None]
    if not between:
        return ""
    low, high = (pick(one.overlap for one in between if one.overlap is not None) for pick in (min, max))
    return (
        f"Two tasks share {low:.0%} to {high:.0%} of a head's {report.overlap_size} dominant chunks; random sets share "
        f"{between[0].chance:.0%}."
    )


def _pairs(report: FrequencyReport) -> str:
    pairs = MODEL_PAIRS[report.pairing]
    if report.pairing == "adjacent":
        return f"Chunks are pairs {pairs}, whatever the model turns, as in the paper's released code."
    head_dim = report.model.head_dim
    still = "" if report.rotary_dims == head_dim else f", and {head_dim - report.rotary_dims} that never turn"
    return (
        f"RoPE turns {report.rotary_dims} of {head_dim} dimensions in pairs {pairs}{still}; tested on the model's keys."
    )


def _kind(method: str) -> str:
    if method.startswith("chunks"):
        return "chunks"
    return "control" if method.startswith("random chunks") else "baseline"


def _paper(report: FrequencyReport, method: str, chunks: int | None) -> float | None:
    name = method
    if chunks is not None:
        if not method.startswith("chunks") or (chunks * PAPER_CHUNKS) % report.n_chunks:
            return None
        name = f"chunks {chunks * PAPER_CHUNKS // report.n_chunks}"
    return next((one.percent for one in report.published if one.method == name), None)
