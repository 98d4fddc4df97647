"""The middle of the page: scores, causal checks, sinks, the residual stream, profiles, the decode plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...core.report import HeadReport, Missing
from ..figures.scores import heatmap_height
from ..views.causal import CausalView, causal_views
from ..views.decode import decode_view
from ..views.profiles import labelled_profiles
from ..views.residual import outlier_rows, residual_norms
from ..views.sinks import SinkRate, SinkRow, sink_rates, sink_table
from ..wording import number
from . import _markup as m

if TYPE_CHECKING:
    import xarray as xr


def scores_panel(report: HeadReport) -> str:
    """Return the heatmap of any score."""
    rows = len(report.model.attention_layers)
    select = (
        '<div class="controls"><label for="score">Score</label><select id="score" data-for="scores"></select></div>'
    )
    note = '<p class="note">Choose a cell to see the head. A cross is a head that was not measured; it is not 0.</p>'
    return m.panel(select + m.chart("scores", heatmap_height(rows)) + note)


def causal_section(report: HeadReport) -> str:
    """Return the causal checks."""
    views = causal_views(report)
    lede = "All heads of one label are ablated together, and beside them as many other heads drawn at random."
    if not views:
        return m.section("causal", "What stops without them", lede, m.panel(m.not_measured("no causal check was run")))
    words = {True: "apart from random heads", False: "not apart from random heads", None: "no interval"}
    items = "".join(
        f'<li>{m.chip(view.label)}<span class="verdict">{words[view.separated]}</span><p>{m.text(view.sentence)}</p>'
        f'<span class="note">{_how(view)}</span></li>'
        for view in views
    )
    chart = m.chart("causal", 60 + 230 * -(-len(views) // 3))
    return m.section("causal", "What stops without them", lede, m.panel(f'<ul class="checks">{items}</ul>{chart}'))


def _how(view: CausalView, shown: int = 12) -> str:
    heads = [f'<span class="nobreak">{m.head_link(name)}</span>' for name in view.heads[:shown]]
    more = f" and {len(view.heads) - shown} more" if len(view.heads) > shown else ""
    draws = f"{view.n_random_draws} draw{'s' if view.n_random_draws != 1 else ''}"
    return f"Ablation: {m.text(view.ablation)}, of {' '.join(heads)}{more}. Control: {m.text(view.control)}; {draws}."


def sinks_section(report: HeadReport, shown: int = 10) -> str:
    """Return sink tokens and the sink rate."""
    rows, rates = sink_table(report), sink_rates(report)
    columns = ("Token", "Position", "Layers", "Prompts", "Received")
    tokens = m.table(columns, map(_sink, rows[:shown]), right=(1, 3, 4))
    if len(rows) > shown:
        rest = m.table(columns, map(_sink, rows[shown:]), right=(1, 3, 4))
        tokens += f"<details><summary>{len(rows) - shown} more</summary>{rest}</details>"
    if not rows:
        tokens = '<p class="note">No token receives more attention than the threshold, or none was collected.</p>'
    lines = ((f"{r.length:,}", _rate(r), m.text(r.n or r.reason or "—")) for r in rates)
    rate = (
        m.table(("Prompt tokens", "Heads that sink", "Prompts"), lines, right=(1, 2))
        if rates
        else m.not_measured("no sink rate")
    )
    note = (
        '<p class="note">Share of heads whose mean attention to the first token is above the threshold '
        f"({m.citation('2410.10781', 'https://arxiv.org/abs/2410.10781')}).</p>"
    )
    body = f'<div class="two wider">{m.panel(tokens, "Sink tokens")}{m.panel(rate + note, "Sink rate by length")}</div>'
    lede = "Tokens that a whole layer attends to, whatever they say. Received: a later query's mean attention."
    return m.section("sinks", "Attention sinks", lede, body)


def _rate(rate: SinkRate) -> str:
    if rate.percent is None:
        return "not measured"
    return f'<span class="track rate"><span style="width:{rate.percent:.1f}%"></span></span>{number(rate.percent)}%'


def _sink(row: SinkRow) -> tuple[str, ...]:
    prompts = f"{row.prompts} of {row.of_prompts}" if row.of_prompts else str(row.prompts)
    return m.token(row.token), f"{row.position:,}", row.layer_text, prompts, number(row.received)


def residual_section(report: HeadReport, statistics: Mapping[str, xr.Dataset]) -> str:
    """Return norms by block and outlier dimensions."""
    norms, rows = residual_norms(statistics), outlier_rows(report)
    left = m.not_measured(norms.reason) if isinstance(norms, Missing) else m.chart("norms", 340)
    right = m.chart("outliers", 340) if rows else '<p class="note">No dimension stands out, or none was collected.</p>'
    body = f'<div class="two stretch">{m.panel(left, "Norm by block")}{m.panel(right, "Outlier dimensions")}</div>'
    lede = "Where the first token's residual stream grows large, and which dimensions are large on most tokens."
    return m.section("residual", "Residual stream", lede, body)


def profiles_section(report: HeadReport, statistics: Mapping[str, xr.Dataset]) -> str:
    """Return distance profiles of labelled heads."""
    n = len(labelled_profiles(report, statistics))
    body = m.panel(m.chart("profiles", 90 + 180 * -(-n // 4)) if n else m.not_measured("no distance profile"))
    return m.section(
        "profiles", "How far they look", "Share of attention by distance, for the clearest heads of each label.", body
    )


def decode_section(report: HeadReport) -> str:
    """Return the decode plan as a grid of KV heads."""
    plan = decode_view(report)
    roles = {(item.layer, item.kv_head): item for item in plan.kv_heads}
    cells = "<span></span>" + "".join(f'<span class="axis x">{layer}</span>' for layer in plan.layers)
    for kv in range(plan.n_kv_heads):
        cells += f'<span class="axis">KV {kv}</span>'
        for layer in plan.layers:
            item = roles[layer, kv]
            label = f"layer {layer}, KV head {kv}: {item.role}, {item.reason}"
            cells += f'<span class="kv {item.role}" title="{m.text(label)}">{item.role[0].upper()}</span>'
    grid = (
        f'<div class="overflow"><div class="plan" style="grid-template-columns:max-content '
        f'repeat({len(plan.layers)},minmax(24px,64px))">{cells}</div></div>'
        f'<div class="key"><span><span class="kv full">F</span>full cache ({plan.full})</span>'
        f'<span><span class="kv streaming">S</span>streaming ({plan.streaming})</span></div>'
    )
    body = m.panel(f'{grid}<p class="note">Columns are layers. Rule: {m.text(plan.rule)}.</p>')
    return m.section("decode", "Decode plan", plan.sentence, body)
