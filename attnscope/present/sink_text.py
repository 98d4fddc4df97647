"""Terminal text of a sink report, as rich renderables; text from models and tokens is never markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..core.report import Missing
from ..core.sink_report import SinkReport
from ._tables import indent, section, table
from .tokens import visible
from .views.effects import Effect
from .views.residual_sinks import residual_sink_view
from .views.sink_levels import level_rows
from .views.sink_rows import sink_groups
from .views.sink_summary import COMMAND, sink_headline, sink_sentences
from .views.sink_writes import write_views
from .wording import number, weights_notice


def sink_summary(report: SinkReport) -> RenderableType:
    """Return the summary, the sinks, their levels, the residual sink dimensions and the interventions."""
    info, notice = report.model, weights_notice(report.model)
    residual, absent = residual_sink_view(report), f"not measured: {COMMAND}"
    parts: list[RenderableType] = [
        Text(visible(info.model_id, 100), style="bold"),
        *([Text(notice, style="bold yellow")] if notice else []),
        Text(""),
        Text(sink_headline(report)),
        *(indent(Text(sentence)) for sentence in sink_sentences(report)),
        *section("Sinks", sinks_table(report) if report.sinks else None, "no position passes the thresholds"),
        *section("Levels", levels_table(report) if report.levels else None, "no sink shows in the residual stream"),
        *section("Without the writes", _effects([view.effect for view in write_views(report)]), absent),
    ]
    if isinstance(residual, Missing):
        return Group(*parts, *section("Residual sinks", None, f"not measured: {residual.reason}"))
    dimensions = residual_table(report) if residual.dimensions else None
    parts += section("Residual sinks", dimensions, "no dimension passes the thresholds")
    parts += section("Interventions on what norms read", _effects(residual.effects), absent)
    if residual.bars:
        losses = ", ".join(f"{bar.name} {number(bar.value)}" for bar in residual.bars)
        parts += section("Quantisation, loss in nats a token", Text(losses), "")
    return Group(*parts)


def sinks_table(report: SinkReport, top: int = 12) -> Table:
    """Return one row a token, kind and level; `—` was not measured."""
    groups = sink_groups(report)
    rows = (
        (
            Text(group.token),
            group.kind,
            str(group.n_sinks),
            group.position_text,
            _whole(group.first_layer),
            _whole(group.lifetime),
            number(group.norm_ratio),
            number(group.share),
            group.writer or "—",
        )
        for group in groups[:top]
    )
    columns = ("token", "kind", "n", "positions", "first", "blocks", "norm ×", "share", "writer")
    made = table(columns, rows, right=(2, 4, 5, 6, 7))
    if len(groups) > top:
        made.caption = Text(f"{len(groups) - top} more in sinks.parquet")
    return made


def levels_table(report: SinkReport) -> Table:
    """Return one row a level."""
    rows = (
        (
            row.kind,
            row.blocks,
            str(row.n_sinks),
            str(row.n_prompts),
            number(row.norm),
            Text(", ".join(f"{token} × {count}" for token, count in row.tokens[:3])),
        )
        for row in level_rows(report)
    )
    return table(("kind", "blocks", "sinks", "prompts", "norm", "common tokens"), rows, right=(2, 3, 4))


def residual_table(report: SinkReport) -> Table:
    """Return one row a residual sink dimension; no rows where they were not measured."""
    view = residual_sink_view(report)
    dimensions = () if isinstance(view, Missing) else view.dimensions
    reads = 0 if isinstance(view, Missing) else len(view.reads)
    rows = (
        (
            str(item.dimension),
            number(item.score),
            f"{item.reads} of {reads}",
            number(item.mean_abs),
            number(item.weight),
            Text(item.writer or "—"),
        )
        for item in dimensions
    )
    columns = ("dimension", "× median", "largest in", "mean |x|", "norm weight", "writer")
    return table(columns, rows, right=(0, 1, 2, 3, 4))


def _effects(effects: Sequence[Effect]) -> Table | None:
    if not effects:
        return None
    rows = (
        (
            effect.name,
            f"{effect.value:+.3g}",
            "" if effect.low is None or effect.high is None else f"[{effect.low:+.3g}, {effect.high:+.3g}]",
            Text(effect.verdict, style="green" if effect.apart else "yellow"),
        )
        for effect in effects
    )
    return table(("change", "loss, nats", "interval", "controls"), rows, right=(1,))


def _whole(value: int | None) -> str:
    return "—" if value is None else str(value)
