"""The top of the sink page: summary, the sinks, their levels; and the thresholds."""

from __future__ import annotations

from ...core.sink_report import SinkReport
from ..figures.sink_levels import spans_height
from ..figures.sink_map import map_height
from ..views.sink_levels import LevelRow, level_rows
from ..views.sink_map import sink_maps
from ..views.sink_rows import SinkEntry, SinkGroup, sink_entries, sink_groups
from ..views.sink_summary import sink_headline, sink_sentences
from ..views.sink_traces import trace_rows
from ..wording import number, weights_notice
from . import _markup as m

MOST_LISTED = 200
"""Sinks listed one by one."""


def hero(report: SinkReport) -> str:
    """Return the headline and what was found, in sentences."""
    info, warning = report.model, weights_notice(report.model)
    notice = f'<p class="warning" role="note">{m.text(warning)}</p>' if warning else ""
    facts = f"{info.architecture} · {info.n_layers} layers × {info.n_heads} query heads · {report.n_tokens:,} tokens"
    items = "".join(f"<li>{m.text(sentence)}</li>" for sentence in sink_sentences(report))
    return (
        f'<div class="hero"><p class="kicker">Sinks of <b>{m.text(info.model_id, 120)}</b></p>'
        f'<h1>{m.text(sink_headline(report))}</h1><p class="facts">{m.text(facts)}</p>{notice}</div>'
        f'<div class="panel"><ul class="findings">{items}</ul></div>'
    )


def map_section(report: SinkReport) -> str:
    """Return the layer × position map and the list of sinks."""
    lede = (
        "Positions that attention rests on, or that the residual stream sets apart. Both are shown, because a sink of "
        "one need not be a sink of the other."
    )
    maps = sink_maps(report)
    if not maps:
        body = m.panel('<p class="note">No position of any prompt passes the thresholds below.</p>')
        return m.section("sink-map", "Sinks", lede, body)
    select = (
        '<div class="controls"><label for="sink-prompt">Prompt</label>'
        '<select id="sink-prompt" data-for="sink-map"></select></div>'
    )
    note = (
        '<p class="note">Colour: share of a query&#39;s attention, mean over heads. Diamond: the output of that block '
        "points along the primary direction. An empty cell was not measured; it is not 0.</p>"
    )
    chart = m.panel(select + m.chart("sink-map", map_height(maps[0].n_layers)) + note)
    return m.section("sink-map", "Sinks", lede, f'<div class="stack">{chart}{m.panel(_groups(report))}</div>')


def _groups(report: SinkReport, shown: int = 8) -> str:
    groups, entries = sink_groups(report), sink_entries(report)
    columns = ("Token", "Kind", "Sinks", "Positions", "First block", "Blocks", "Norm, × median", "Share", "Writer")
    table = m.table(columns, map(_group, groups[:shown]), right=(2, 4, 5, 6, 7))
    if len(groups) > shown:
        rest = m.table(columns, map(_group, groups[shown:MOST_LISTED]), right=(2, 4, 5, 6, 7))
        table += f"<details><summary>{len(groups) - shown} more</summary>{rest}</details>"
    every = ("Prompt", "Position", "Token", "Kind", "First block", "Blocks", "Norm, × median", "Share", "In layer",
             "Heads", "Writer")  # fmt: skip
    more = f"<p class=note>The other {len(entries) - MOST_LISTED:,} are in sinks.parquet.</p>"
    listed = m.table(every, map(_entry, entries[:MOST_LISTED]), right=(0, 1, 4, 5, 6, 7, 8, 9))
    note = (
        '<p class="note">Blocks: how many block outputs in a row point along the primary direction. Share: of a '
        "query&#39;s attention in the layer where it is largest.</p>"
    )
    return (
        f"{table}{note}<details><summary>Every sink, one by one</summary>{listed}"
        f"{more if len(entries) > MOST_LISTED else ''}</details>"
    )


def _group(group: SinkGroup) -> tuple[str, ...]:
    return (
        m.token(group.token),
        m.text(group.kind),
        f"{group.n_sinks:,}",
        group.position_text,
        _whole(group.first_layer),
        _whole(group.lifetime),
        number(group.norm_ratio),
        percent(group.share),
        m.text(group.writer or "—"),
    )


def _entry(row: SinkEntry) -> tuple[str, ...]:
    return (
        f"{row.prompt}",
        f"{row.position:,}",
        m.token(row.token),
        m.text(row.kind),
        _whole(row.first_layer),
        _whole(row.lifetime),
        number(row.norm_ratio),
        percent(row.share),
        _whole(row.share_layer),
        percent(row.sink_heads),
        m.text(row.writer or "—"),
    )


def percent(value: float | None) -> str:
    """Return a share in percent, `—` where there is none."""
    return "—" if value is None else f"{100 * value:.1f}%"


def _whole(value: int | None) -> str:
    return "—" if value is None else str(value)


def levels_section(report: SinkReport) -> str:
    """Return the levels as bars, as a table, and their attention by layer."""
    rows = level_rows(report)
    lede = "Sinks that start at one block and live equally long form a level."
    if not rows:
        body = m.panel('<p class="note">No sink shows in the residual stream, so there are no levels.</p>')
        return m.section("sink-levels", "Levels", lede, body)
    columns = ("Kind", "Blocks", "Sinks", "Prompts", "Norm", "Common tokens")
    table = m.table(columns, (_level(row) for row in rows), right=(2, 3, 4))
    shares = (
        m.chart("sink-shares", 340)
        if any(row.measured for row in rows)
        else m.not_measured("attention on these sinks was not collected")
    )
    spans = m.panel(m.chart("sink-spans", spans_height(len(rows))), "Where each level lives")
    right = m.panel(shares, "Attention on a sink of each level")
    body = f'<div class="stack">{m.panel(table)}<div class="two stretch">{spans}{right}</div>{_traces(report)}</div>'
    source = m.citation("2512.22213", "https://arxiv.org/abs/2512.22213")
    return m.section("sink-levels", "Levels", lede, f'{body}<p class="note">Source: {source}.</p>')


def _traces(report: SinkReport) -> str:
    rows = trace_rows(report)
    if not rows:
        return ""
    told = any(value is not None for row in rows for value in row.cosine)
    norms = m.panel(m.chart("sink-norms", 340), "Residual norm through the model")
    cosine = m.chart("sink-cosines", 340) if told else m.not_measured("no prompt has a primary sink")
    return f'<div class="two stretch">{norms}{m.panel(cosine, "Direction, against the primary sink")}</div>'


def _level(row: LevelRow) -> tuple[str, ...]:
    tokens = " ".join(f'<span class="nobreak">{m.token(token)} × {count}</span>' for token, count in row.tokens)
    return m.text(row.kind), row.blocks, f"{row.n_sinks:,}", f"{row.n_prompts:,}", number(row.norm), tokens or "—"


def thresholds_section(report: SinkReport) -> str:
    """Return what counts as a sink here, and the report's notes."""
    values = {"mode": report.mode, "prompts": report.n_prompts, "tokens": report.n_tokens, **report.thresholds}
    facts = "".join(f"<dt>{m.text(name)}</dt><dd>{m.text(value)}</dd>" for name, value in values.items())
    notes = "".join(f"<li>{m.text(note)}</li>" for note in report.notes)
    notes = f'<h3 class="later">Notes</h3><ul class="note">{notes}</ul>' if notes else ""
    lede = "What counts as a sink in this report. Another threshold gives other sinks."
    return m.section("sink-thresholds", "Thresholds", lede, m.panel(f"<dl class=dl>{facts}</dl>{notes}"))
