"""A retrieval report in a few sentences; what is said of ablations is said beside the control."""

from __future__ import annotations

from ...core.report import Missing
from ...core.retrieval_report import RetrievalReport
from ..tokens import visible
from ..wording import number, percent
from .points import Point, first_reason
from .retrieval_curves import Compared, ablation_lines, budget_lines
from .retrieval_heads import HeadLine, head_lines, stability_view
from .retrieval_needles import needle_grid

KEPT = 0.95
"""Share of the accuracy with all KV heads full that a budget must keep to be named."""
_DOING = {"zero": ("Without {}", "without {}"), "uniform": ("With {} looking everywhere alike", "with {}")}


def retrieval_headline(report: RetrievalReport, most: int = 6) -> str:
    """Return one sentence: how many heads retrieve, and which.

    Example:
        `6 of 64 heads retrieve (score ≥ 0.1): L6H4, L5H0, L3H2, L2H1, L5H7, L6H1`
    """
    lines = head_lines(report)
    measured = [line for line in lines if line.above is not None]
    if not report.n_needles:
        return "No needle was given, so no head has a retrieval score"
    if not report.n_answered and not measured:
        return f"The model answered 0 of {report.n_needles:,} needles, so no head has a retrieval score"
    if not measured:
        reason = first_reason([line.score for line in lines])
        return f"No head has a retrieval score: {visible(reason, 200)}"
    found = [line for line in measured if line.above]
    of = f"{len(measured)} measured heads" if len(measured) < len(lines) else f"{len(lines)} heads"
    start = f"{len(found) or 'None'} of {of} retrieve{'s' if len(found) < 2 else ''} (score ≥ {report.threshold:g})"
    if not found:
        return f"{start}; the highest score is {number(measured[0].score.value)}, {measured[0].name}"
    names = ", ".join(line.name for line in found[:most])
    return f"{start}: {names}{f' and {len(found) - most} more' if len(found) > most else ''}"


def retrieval_sentences(report: RetrievalReport) -> list[str]:
    """Return what was found, in plain words, the most important first; plain text."""
    found = [_answered(report), _certain(report), *_ablated(report), _budget(report), _stable(report)]
    return [sentence for sentence in found if sentence]


def _answered(report: RetrievalReport) -> str:
    if not report.n_answered:
        return ""
    others = f", each among {report.n_others} others" if report.n_others else ""
    start = f"The model answers {report.n_answered:,} of {report.n_needles:,} needles{others}."
    grid = needle_grid(report)
    if grid is None or len(report.cells) < 2:
        return start
    cell, length, depth = grid.weakest
    if cell.value == 1.0:
        return start
    return f"{start} It is weakest at {length:,} tokens, depth {percent(depth)}: {_point(cell)}."


def _certain(report: RetrievalReport) -> str:
    found = [line for line in head_lines(report) if line.above]
    if not found:
        return ""
    told = [line for line in found if line.certain is not None]
    sentences = []
    if told:
        n = sum(bool(line.certain) for line in told)
        heads = f"the {len(told)} heads" if len(told) > 1 else "the 1 head"
        sentences.append(f"For {n} of {heads} the whole interval is at or above {report.threshold:g}.")
    else:
        sentences.append("Their scores have no intervals.")
    return " ".join([*sentences, *_decoded(found, report.threshold)])


def _decoded(found: list[HeadLine], threshold: float) -> list[str]:
    held = [line.decoded.value for line in found if line.decoded.value is not None]
    if not held:
        return []
    return [f"While decoding, {sum(value >= threshold for value in held)} of {len(held)} reach it too."]


def _ablated(report: RetrievalReport) -> list[str]:
    """Tell, for every mode, of as many heads as retrieve; the control is always told beside them."""
    n = sum(bool(line.above) for line in head_lines(report))
    sentences = []
    for line in ablation_lines(report):
        step = next((item for item in reversed(line.points) if item.x <= n), line.points[0])
        count = len(step.heads)
        heads = f"the first head ({step.heads[0]})" if count == 1 else f"the first {count} heads"
        ours, theirs = _DOING[line.key]
        others = theirs.format(f"{count} random other{'s' if count > 1 else ''}")
        needles = f"accuracy on {step.accuracy.n:,} needles" if step.accuracy.n else "needle accuracy"
        sentences.append(f"{ours.format(heads)}, {needles} {_went(step)}; {_control(step, others)}.")
    return sentences


def _budget(report: RetrievalReport) -> str:
    lines = budget_lines(report)
    if not lines:
        return ""
    line = lines[-1]
    whole = max(item.whole for item in line.points)
    if whole <= 0:
        return f"With all KV heads full the model answers no needle at {line.title}, so streaming has nothing to lose."
    step = _smallest(line.points)
    if step is None:
        return f"No measured share of full KV heads keeps {percent(KEPT)} of the needle accuracy at {line.title}."
    verdict = "" if step.beyond is None else f" ({step.verdict})"
    return (
        f"The smallest measured share of full KV heads that keeps {percent(KEPT)} of the needle accuracy at "
        f"{line.title} is {percent(step.x)}: {_point(step.accuracy)}{verdict}, against {percent(step.whole)} with all "
        f"full; {_control(step, 'with as many random KV heads full')}."
    )


def _smallest(points: tuple[Compared, ...]) -> Compared | None:
    """The smallest budget from which on every budget keeps the accuracy."""
    found = None
    for item in reversed(points):
        if (item.accuracy.value or 0.0) < KEPT * item.whole:
            break
        found = item
    return found


def _stable(report: RetrievalReport) -> str:
    view = stability_view(report)
    return "" if isinstance(view, Missing) else view.sentence


def _went(step: Compared) -> str:
    words = f"from {percent(step.whole)} to {_point(step.accuracy)}"
    verdict = "" if step.beyond is None else f", {step.verdict}"
    if step.changed is None:
        return f"goes {words} (a change without an interval){verdict}"
    if not step.changed:
        return f"goes {words}, a change whose interval includes 0{verdict}"
    return f"{'falls' if (step.change.value or 0.0) < 0 else 'rises'} {words}{verdict}"


def _control(step: Compared, words: str) -> str:
    if step.beyond is None or step.control.value is None:
        reason = f" ({visible(step.control.reason, 200)})" if step.control.reason else ""
        return f"there is no random control{reason}"
    layers = "" if step.layer_matched else " (not all of the same layers)"
    draws = f"{len(step.draws)} draw{'s' if len(step.draws) != 1 else ''}"
    return f"{words}{layers} it is {_point(step.control)}, mean of {draws}"


def _point(item: Point) -> str:
    if item.low is None or item.high is None:
        return percent(item.value)
    return f"{percent(item.value)} [{percent(item.low)}, {percent(item.high)}]"
