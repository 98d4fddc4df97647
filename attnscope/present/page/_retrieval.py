"""The top of the retrieval page: summary and needles; and its end: setup, and what was not measured."""

from __future__ import annotations

from ...core.retrieval_report import RetrievalReport
from ..figures.retrieval_needles import needles_height
from ..views.points import Point
from ..views.retrieval_missing import retrieval_missing
from ..views.retrieval_needles import NeedleGrid, needle_grid
from ..views.retrieval_summary import retrieval_headline, retrieval_sentences
from ..wording import percent, weights_notice
from . import _markup as m


def hero(report: RetrievalReport) -> str:
    """Return the headline and what was found, in sentences."""
    info, warning = report.model, weights_notice(report.model)
    notice = f'<p class="warning" role="note">{m.text(warning)}</p>' if warning else ""
    facts = (
        f"{info.architecture} · {info.n_layers} layers × {info.n_heads} query heads over {info.n_kv_heads} KV heads · "
        f"{report.n_needles:,} needles, {report.n_answered:,} answered"
    )
    items = "".join(f"<li>{m.text(sentence, 600)}</li>" for sentence in retrieval_sentences(report))
    headline = m.text(retrieval_headline(report)).replace("score ≥ ", "score&nbsp;≥&nbsp;")
    found = f'<div class="panel"><ul class="findings">{items}</ul></div>' if items else ""
    return (
        f'<div class="hero"><p class="kicker">Retrieval heads of <b>{m.text(info.model_id, 120)}</b></p>'
        f'<h1>{headline}</h1><p class="facts">{m.text(facts)}</p>{notice}</div>{found}'
    )


def needles_section(report: RetrievalReport) -> str:
    """Return needle accuracy by length and depth."""
    lede = (
        "A needle is answered when every token of its answer is the likeliest, given the tokens before it. Scores of "
        "heads are taken from answered needles only."
    )
    grid = needle_grid(report)
    if grid is None:
        return m.section("retrieval-needles", "Needles", lede, m.panel(m.not_measured("no needle was given")))
    note = '<p class="note">An empty cell had no needle; it is not 0.</p>'
    told = f"{report.n_answered:,} of {report.n_needles:,} needles answered"
    if not report.n_answered:
        told = f"The model answered 0 of {report.n_needles:,} needles, so nothing here says which heads retrieve"
    chart = m.chart("retrieval-grid", needles_height(len(grid.depths)))
    return m.section("retrieval-needles", "Needles", lede, m.panel(f"{chart}{note}{_cells(grid)}", told))


def _cells(grid: NeedleGrid) -> str:
    rows = (
        (f"{length:,}", percent(depth), with_interval(cell), f"{cell.n:,}")
        for depth, row in zip(grid.depths, grid.cells, strict=True)
        for length, cell in zip(grid.lengths, row, strict=True)
        if cell.value is not None
    )
    table = m.table(("Length", "Depth", "Answered", "Needles"), rows, right=(0, 1, 2, 3))
    return f"<details><summary>Every cell as a table</summary>{table}</details>"


def with_interval(item: Point) -> str:
    """Return `90% [85%, 95%]` on one line, HTML."""
    interval = "" if item.low is None or item.high is None else f" [{percent(item.low)}, {percent(item.high)}]"
    return f'<span class="nobreak">{percent(item.value)}{interval}</span>'


def setup_section(report: RetrievalReport) -> str:
    """Return how needles were given and what counts as a retrieval head, what is missing, and the report's notes."""
    values = {
        "needles": f"{report.n_needles:,}",
        "answered": f"{report.n_answered:,}",
        "other needles in each prompt": f"{report.n_others:,}",
        "a retrieval head's score is at least": f"{report.threshold:g}",
        "sink tokens of a streaming KV head": report.sink_tokens,
        "recent tokens of a streaming KV head": report.recent_tokens,
    }
    facts = "".join(
        f"<dt>{m.text(name)}</dt><dd>{m.text(value)}</dd>" for name, value in values.items() if value is not None
    )
    notes = "".join(f"<li>{m.text(note)}</li>" for note in report.notes)
    notes = f'<h3 class="later">Notes</h3><ul class="note">{notes}</ul>' if notes else ""
    absent = m.table(("What", "Why"), ((m.text(what), m.text(why)) for what, why in retrieval_missing(report)))
    if not retrieval_missing(report):
        absent = '<p class="note">Everything was measured.</p>'
    lede = "What counts as a retrieval head in this report. Another threshold gives other heads."
    setup = m.panel(f"<dl class=dl>{facts}</dl>{notes}", "Setup")
    body = f'<div class="two">{setup}{m.panel(absent, "Not measured")}</div>'
    return m.section("retrieval-setup", "Setup", lede, body)
