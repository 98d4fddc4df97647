"""Terminal text of one ablation; text from models and results is never markup."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text

from ..core.ablation_report import AblatedMetric, AblationResult
from ._tables import indent, section, table
from .retrieval_text import with_interval
from .tokens import visible
from .views.circuit_summary import p_words
from .views.points import Point, point
from .wording import number, percent, points, weights_notice


def ablation_summary(result: AblationResult) -> RenderableType:
    """Return what was ablated, every metric before and after, and the random control."""
    notice = weights_notice(result.model)
    heads = ", ".join(visible(head) for head in result.heads)
    rows = [_row(metric) for metric in result.metrics]
    columns = ("metric", "before", "after", "change", "p", "random others", "against random")
    notes = [indent(Text(visible(note, 300), style="dim")) for note in result.notes]
    if not result.layer_matched:
        notes.append(indent(Text("Some random draws took heads of the nearest layers.", style="dim")))
    return Group(
        Text(visible(result.model.model_id, 100), style="bold"),
        *([Text(notice, style="bold yellow")] if notice else []),
        Text(""),
        Text(f"{visible(result.mode, 40).capitalize()} ablation of {heads} on {visible(result.task, 60)}"),
        *(indent(Text(sentence)) for sentence in ablation_sentences(result)),
        *section(f"{result.n_prompts:,} prompts", table(columns, rows, right=()), ""),
        *notes,
    )


def ablation_sentences(result: AblationResult) -> list[str]:
    """Return what happened to each metric, beside the control; plain text."""
    found = []
    for metric in result.metrics:
        form = _form(metric)
        went = f"{visible(metric.name, 60)} goes from {form(metric.before.value)} to {form(metric.after.value)}"
        control = point(metric.control)
        if control.value is None:
            beside = f"there is no random control ({visible(control.reason or '', 100)})"
        else:
            draws = len(metric.control_draws)
            beside = f"without as many random others it is {form(control.value)}, mean of {draws} draws"
        found.append(f"{went}; {beside}: {_verdict(metric)}.")
    return found


def _row(metric: AblatedMetric) -> tuple[str | Text, ...]:
    form = _form(metric)
    apart = _beyond(metric)
    units = "" if metric.units == "1" else f", {visible(metric.units, 20)}"
    return (
        f"{visible(metric.name, 60)}{units}",
        with_interval(point(metric.before), form),
        with_interval(point(metric.after), form),
        with_interval(point(metric.change), points if metric.units == "1" else number),
        p_words(metric.p),
        with_interval(point(metric.control), form),
        Text(_verdict(metric), style="green" if apart else "yellow"),
    )


def _form(metric: AblatedMetric) -> Callable[[float | None], str]:
    return percent if metric.units == "1" else number


def _beyond(metric: AblatedMetric) -> bool | None:
    draws, value = metric.control_draws, metric.after.value
    if not draws:
        return None
    return value < min(draws) if metric.higher_is_better else value > max(draws)


def _verdict(metric: AblatedMetric) -> str:
    change: Point = point(metric.change)
    if change.low is not None and change.high is not None and change.low <= 0 <= change.high:
        return "the interval of the change includes 0"
    worse = _beyond(metric)
    if worse is None:
        return "no random control"
    return "worse than every random draw" if worse else "not worse than every random draw"
