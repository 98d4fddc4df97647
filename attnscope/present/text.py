"""Terminal text: a summary of a report and the table of its heads, as rich renderables.

All text from models and tokens enters as `rich.text.Text`, never as markup, and with control characters made visible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..core.report import HeadReport
from .style import LABEL_STYLES
from .tokens import visible
from .views.causal import CausalView, causal_views
from .views.decode import decode_view
from .views.heads import heads_table as heads_view
from .views.labels import headline, label_counts, top_heads
from .views.scores import missing_evidence
from .views.sinks import sink_rates, sink_table
from .wording import SCORE_WORDS, number, units_suffix, weights_notice

COLUMNS = {
    "sink_mass": "sink",
    "previous_token": "prev",
    "duplicate_token": "dup",
    "induction": "ind",
    "retrieval": "retr",
    "local_mass": "local",
    "positional_share": "pos",
}
"""Scores of the heads table and their headings, short enough for 80 columns; a score that is sorted by joins them."""


def summary(report: HeadReport, files: Mapping[str, str | Path] | None = None) -> RenderableType:
    """Return the model, counts by label, sinks, causal checks, the decode plan, and where the files are.

    Args:
        report: the report.
        files: what it is → where it is, for example `{"page": "runs/pocket/report.html"}`.
    """
    info, notice = report.model, weights_notice(report.model)
    parts: list[RenderableType] = [
        Text(visible(info.model_id, 100), style="bold"),
        Text(
            f"{info.architecture}, {info.n_layers} layers × {info.n_heads} query heads over {info.n_kv_heads} KV heads",
            style="dim",
        ),
        *([Text(notice, style="bold yellow")] if notice else []),
        Text(""),
        Text(headline(report)),
        _indent(_labels(report)),
        *_sinks(report),
        *_section("Causal checks", [_check(view) for view in causal_views(report)]),
        *_section("Decode plan", [Text(decode_view(report).sentence)]),
        *_section("Not measured", _missing(report)),
    ]
    if files:
        parts += _section("Files", [_pair(name, str(place)) for name, place in files.items()])
    return Group(*parts)


def heads_table(report: HeadReport, label: str | None = None, sort: str | None = None, top: int | None = None) -> Table:
    """Return one row a head; `—` is a score that was not measured.

    Args:
        report: the report.
        label: only heads that carry it.
        sort: a score, largest first; None sorts by the label's own score, else by layer and head.
        top: at most so many rows.

    Raises:
        UnknownNameError: there is no such label or score.
    """
    rows = heads_view(report, label, sort, top)
    columns = (*([sort] if sort and sort not in COLUMNS else []), *COLUMNS)
    table = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left", caption_style="dim"
    )
    table.add_column("head", no_wrap=True)
    table.add_column("KV", justify="right")
    table.add_column("cache")
    table.add_column("labels", min_width=12)
    for score in columns:
        heading = COLUMNS.get(score, SCORE_WORDS[score].title.lower())
        table.add_column(heading, justify="right", style="bold" if score == sort else "")
    for row in rows:
        values = [number(row.scores.get(score)) for score in columns]
        role = "stream" if row.role == "streaming" else row.role
        table.add_row(row.name, str(row.kv_head), role, Text(", ".join(row.labels)), *values)
    n = len(report.records)
    notice = weights_notice(report.model)
    caption = f"{len(rows)} of {n} heads" + (f" labelled {label}" if label else "")
    table.caption = Text(f"{caption}\n{notice}" if notice else caption)
    return table


def _labels(report: HeadReport) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, count in label_counts(report).items():
        best = top_heads(report, label, 6)
        names = ", ".join(f"{head.name} {number(head.value)}{units_suffix(head.units)}" for head in best)
        more = f", and {count - len(best)} more" if best and count > len(best) else ""
        table.add_row(_chips((label,)), Text(str(count), justify="right"), Text(names + more, style="dim"))
    return table


def _sinks(report: HeadReport) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for rate in sink_rates(report):
        if rate.percent is not None:
            lines.append(Text(f"sink rate {number(rate.percent)}% of heads at {rate.length} tokens ({rate.n} prompts)"))
    for row in sink_table(report, 5):
        prompts = f"{row.prompts} of {row.of_prompts}" if row.of_prompts else f"{row.prompts}"
        line = Text("token ").append(row.token, style="bold")
        line.append(
            f" at position {row.position}, layers {row.layer_text}, {prompts} prompts, receives {number(row.received)}"
        )
        lines.append(line)
    return _section("Sinks", lines or [Text("no token receives more than the threshold", style="dim")])


def _check(view: CausalView) -> Text:
    verdict = {True: "apart from random heads", False: "not apart from random heads", None: ""}[view.separated]
    text = Text(view.sentence)
    return text.append(f" ({verdict})", style="green" if view.separated else "yellow") if verdict else text


def _missing(report: HeadReport) -> list[RenderableType]:
    n = len(report.records)
    return [
        Text(f"{item.score} ({'all heads' if item.all_heads else f'{item.heads} of {n} heads'}): ").append(
            visible(item.reason, 160), style="dim"
        )
        for item in missing_evidence(report)
    ]


def _chips(labels: Sequence[str]) -> Text:
    text = Text()
    for i, label in enumerate(labels):
        style = LABEL_STYLES[label]
        text.append(" " if i else "")
        text.append(f" {style.mark} ", style=f"{style.ink('light')} on {style.light}")
        text.append(f" {label}")
    return text


def _section(title: str, lines: Sequence[RenderableType]) -> list[RenderableType]:
    return [Text(""), Text(title, style="bold"), *(_indent(line) for line in lines)] if lines else []


def _indent(item: RenderableType) -> Padding:
    return Padding(item, (0, 0, 0, 2))


def _pair(name: str, value: str) -> Text:
    return Text(f"{name:<12}").append(value, style="bold")
