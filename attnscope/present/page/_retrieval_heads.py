"""Retrieval heads, how stable their ranking is, and every measure of every head."""

from __future__ import annotations

from ...core.report import Missing
from ...core.retrieval_report import RetrievalReport
from ..figures.retrieval_heads import STABILITY_HEIGHT, dots_height
from ..figures.scores import heatmap_height
from ..views.points import Point, first_reason
from ..views.retrieval_heads import HeadLine, head_lines, stability_view, top_lines
from ..views.retrieval_measures import WORDS, agreement_rows, retrieval_grids
from ..wording import arxiv_url, number
from . import _markup as m

WITH_INTERVAL = ("retrieval", "retrieval_decoded")
"""Measures whose intervals the table has room for; all are in retrieval.parquet."""


def heads_section(report: RetrievalReport) -> str:
    """Return the highest heads, with their scores as dots and in a table, and the stability of the ranking."""
    lede = (
        "A head retrieves a token of the answer when that token's place in the needle is where the head looks most, of "
        "all places in the prompt. The score is the share of answer tokens, mean over answered needles."
    )
    lines = top_lines(report)
    stable = m.panel(_stability(report), "How many needles the ranking needs")
    source = m.citation("2404.15574", "https://arxiv.org/abs/2404.15574")
    if not lines:
        reason = first_reason([line.score for line in head_lines(report)])
        left = m.panel(m.not_measured(reason), "Highest heads")
        body = f'<div class="two stretch">{left}{stable}</div>'
    else:
        dots = m.panel(m.chart("retrieval-top", dots_height(len(lines))), f"The {len(lines)} highest heads")
        body = f'<div class="stack"><div class="two stretch">{dots}{stable}</div>{m.panel(_table(report, lines))}</div>'
    return m.section("retrieval-heads", "Heads", lede, f'{body}<p class="note">Source: {source}.</p>')


def _stability(report: RetrievalReport) -> str:
    view = stability_view(report)
    if isinstance(view, Missing):
        return m.not_measured(view.reason)
    note = f"{view.sentence} The last point compares all needles with themselves."
    return m.chart("retrieval-stability", STABILITY_HEIGHT) + f'<p class="note">{m.text(note)}</p>'


def _table(report: RetrievalReport, lines: list[HeadLine]) -> str:
    measures = [name for name in WORDS if any(line.measures[name].value is not None for line in head_lines(report))]
    titles = [WORDS[name].column for name in measures]
    columns = ("Head", "KV head", f"≥ {report.threshold:g}", *titles, "Split")
    rows = (
        (
            m.text(line.name),
            str(line.kv_head),
            f'<span class="nobreak">{_retrieves(line)}</span>',
            *(_cell(line.measures[name], name in WITH_INTERVAL) for name in measures),
            " + ".join("—" if size is None else f"{size:,}" for size in line.sizes),
        )
        for line in lines
    )
    table = m.table(columns, rows, right=(1, *range(3, len(columns))))
    rest = len(report.heads) - len(lines)
    more = f" The other {rest:,} heads are in retrieval.parquet." if rest else ""
    note = (
        "Value only: the score reaches the threshold, its interval goes below. Split: columns + diagonals of the best "
        f"vertical and slash, tokens.{more}"
    )
    return f'{table}<p class="note">{m.text(note)}</p>'


def _cell(item: Point, interval: bool) -> str:
    if item.value is None:
        return "—"
    if not interval or item.low is None or item.high is None:
        return number(item.value)
    return f'<span class="nobreak">{number(item.value)} [{number(item.low)}, {number(item.high)}]</span>'


def _retrieves(line: HeadLine) -> str:
    if not line.above:
        return "no"
    return {True: "yes", False: "value only", None: "no interval"}[line.certain]


def measures_section(report: RetrievalReport) -> str:
    """Return every measure of every head, and how far the rankings agree."""
    lede = "Published measures of retrieval answer different questions; where two disagree, both are shown."
    rows = agreement_rows(report)
    columns = ("First", "Second", "Rank correlation", "In both tops", "By chance")
    table = m.table(
        columns,
        (
            (m.text(r.first), m.text(r.second), number(r.spearman), f"{r.common} of {r.k}", number(r.expected))
            for r in rows
        ),
        right=(2, 3, 4),
    )
    note = '<p class="note">Rank correlation: Spearman, over all heads; — where one ranking is constant.</p>'
    agree = f"{table}{note}" if rows else m.not_measured("no two measures were compared")
    body = (
        f'<div class="stack">{m.panel(_grid(report), "Every head")}'
        f"{m.panel(agree, 'How far they agree')}{m.panel(_sources())}</div>"
    )
    return m.section("retrieval-measures", "Measures", lede, body)


def _grid(report: RetrievalReport) -> str:
    grids = retrieval_grids(report)
    if not any(grid.measured for grid in grids):
        return m.not_measured(grids[0].reason or "" if grids else "the report holds no heads")
    select = (
        '<div class="controls"><label for="retrieval-measure">Show</label>'
        '<select id="retrieval-measure" data-for="retrieval-scores"></select></div>'
    )
    note = '<p class="note">A cross is a head that was not measured; it is not 0.</p>'
    return select + m.chart("retrieval-scores", heatmap_height(len(grids[0].layers))) + note


def _sources() -> str:
    rows = (
        (m.text(words.title), m.text(words.meaning), m.citation(words.citation, arxiv_url(words.citation)))
        for words in WORDS.values()
    )
    return m.table(("Measure", "Meaning", "Source"), rows)
