"""The top of the page: headline, cards, the head grid, the heads of each label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...core.report import HeadReport
from ..style import LABEL_STYLES
from ..views.heads import HeadCell, HeadGrid, head_grid
from ..views.labels import RankedHead, headline, label_counts, top_heads
from ..views.summary import summary_cards
from ..wording import SCORE_WORDS, number, units_suffix, weights_notice
from . import _markup as m

if TYPE_CHECKING:
    import xarray as xr

MOST_LISTED = 60
"""Heads listed for one label."""


def hero(report: HeadReport, statistics: Mapping[str, xr.Dataset]) -> str:
    """Return the headline sentence and the cards."""
    info = report.model
    size = f" · {info.n_parameters / 1e6:,.1f} M parameters" if info.n_parameters else ""
    context = f" · context {info.context_length:,} tokens" if info.context_length else ""
    facts = f"{info.n_layers} layers × {info.n_heads} query heads over {info.n_kv_heads} KV heads{size}{context}"
    several = sum(label_counts(report).values()) > len(report.records)
    warning = weights_notice(info)
    notice = f'<p class="warning" role="note">{m.text(warning)}</p>' if warning else ""
    extra = " · a head may carry several labels" if several else ""
    cards = "".join(
        f'<div class="card"><dt>{m.text(card.title)}</dt><dd class="value" style="margin-left:0" '
        f'title="{m.text(card.value)}">{m.text(card.value)}</dd><dd class="note">{m.text(card.note)}</dd></div>'
        for card in summary_cards(report, statistics)
    )
    return (
        f'<div class="hero"><p class="kicker">What every head of <b>{m.text(info.model_id, 120)}</b> does</p>'
        f'<h1>{_coloured(report)}</h1><p class="facts">{m.text(info.architecture)} · {facts}{extra}</p>{notice}</div>'
        f'<dl class="cards">{cards}</dl>'
    )


def _coloured(report: HeadReport) -> str:
    """The headline with each count underlined in its label's colour."""
    sentence = m.text(headline(report))
    for label in label_counts(report):
        style = LABEL_STYLES[label]
        words = f"(?:{re.escape(style.one)}|{re.escape(style.many)})"
        sentence = re.sub(rf"(?<=[ :])([\d,]+ {words})(?=,|$)", rf'<span class="part l-{label}">\1</span>', sentence)
    return sentence


def grid_section(report: HeadReport, scores: str) -> str:
    """Return the clickable head grid, the score map (`scores`, HTML) below it and the panel beside them."""
    grid = head_grid(report)
    legend = "".join(
        f'<li class="l-{label}"><button type="button" data-label="{label}" aria-pressed="false" '
        f'title="{LABEL_STYLES[label].meaning}"><span class="mark">{LABEL_STYLES[label].mark}</span>'
        f'{LABEL_STYLES[label].title} <span class="count">{count}</span></button></li>'
        for label, count in grid.counts.items()
    )
    body = (
        f'<div class="explore"><div class="stack"><div class="panel"><ul class="legend">{legend}</ul>'
        f'<div class="scroll">{_grid(grid)}</div>'
        '<p class="note">Rows are layers, columns are query heads; a gap parts the KV heads. A dot marks a further '
        f"label. Choose a label to see its heads alone.</p></div>{scores}</div>"
        '<aside class="panel" id="head" aria-live="polite" aria-label="The chosen head"></aside></div>'
    )
    return m.section("heads", "Every head", "Choose a head to see what was measured and which rule named it.", body)


def _grid(grid: HeadGrid) -> str:
    dense = grid.n_heads > 16 or len(grid.layers) > 20
    cell = 21 if dense else min(54, max(40, 440 // len(grid.layers)))
    columns = f"{32 if dense else 44}px repeat({grid.n_heads},minmax({16 if dense else 34}px,1fr))"
    axis = "".join(f'<span class="axis">{head}</span>' for head in range(grid.n_heads))
    rows = [f'<span class="axis y">L</span>{axis}']
    for layer in grid.layers:
        cells = "".join(_cell(item, grid) for item in grid.row(layer))
        rows.append(f'<span class="axis y">{layer}</span>{cells}')
    return (
        f'<div class="grid{" dense" if dense else ""}" role="group" aria-label="Head grid, layer by query head" '
        f'style="grid-template-columns:{columns};--cell:{cell}px">{"".join(rows)}</div>'
    )


def _cell(item: HeadCell, grid: HeadGrid) -> str:
    group = " group" if item.head and item.head % grid.group_size == 0 and grid.group_size > 1 else ""
    second = f'<i class="s-{item.labels[1]}"></i>' if len(item.labels) > 1 else ""
    labels = ", ".join(LABEL_STYLES[label].title for label in item.labels)
    return (
        f'<button type="button" class="cell l-{item.primary}{group}" tabindex="-1" '
        f'aria-label="{item.name} {labels}">{item.mark}{second}</button>'
    )


def labels_section(report: HeadReport, shown: int = 6) -> str:
    """Return the heads of each label, the clearest first."""
    cards = "".join(_label_card(report, label, shown) for label in label_counts(report) if top_heads(report, label, 1))
    lede = "The clearest heads of each label, by the score that the rule reads, with intervals over prompts."
    body = f'<div class="tops">{cards}</div>' if cards else m.not_measured("no rule names any head")
    return m.section("labels", "Heads by label", lede, body)


def _label_card(report: HeadReport, label: str, shown: int) -> str:
    heads, style = top_heads(report, label), LABEL_STYLES[label]
    rows = "".join(_ranked(head, label) for head in heads[:shown])
    rest = "".join(_ranked(head, label) for head in heads[shown:MOST_LISTED])
    if len(heads) > MOST_LISTED:
        rest += f'<p class="note">The other {len(heads) - MOST_LISTED:,} are in heads.csv.</p>'
    more = f"<details><summary>{len(heads) - shown:,} more</summary>{rest}</details>" if rest else ""
    score = SCORE_WORDS[heads[0].score]
    return (
        f'<div class="panel"><header>{m.chip(label)}<span class="muted">{len(heads)}</span></header>'
        f'<p class="note">{style.meaning} Score: {score.meaning}.</p>{rows}{more}</div>'
    )


def _ranked(head: RankedHead, label: str) -> str:
    share = SCORE_WORDS[head.score].share or head.units == "percent"
    width = 100 * min(1.0, max(0.0, head.value / head.full)) if share else 0.0
    whisker = ""
    if share and head.low is not None and head.high is not None:
        left, span = 100 * head.low / head.full, 100 * (head.high - head.low) / head.full
        whisker = f'<u style="left:{left:.1f}%;width:{span:.1f}%"></u>'
    interval = "" if head.low is None else f"{number(head.low)} – {number(head.high)}"
    return (
        f'<div class="score">{m.head_link(head.name)}<span class="track l-{label}">'
        f'<span style="width:{width:.1f}%;background:var(--fill)"></span>{whisker}</span>'
        f'<span class="v">{number(head.value)}{units_suffix(head.units)}</span><span class="ci">{interval}</span></div>'
    )
