"""The frequency page: summary, chunks of every head, choices of keys, tasks, definitions."""

from __future__ import annotations

from ...core.frequency_report import FrequencyReport
from ..figures.frequency import map_height, overlap_height
from ..figures.scores import heatmap_height
from ..views.frequency import chunk_curves, chunk_grids, chunk_map
from ..views.frequency_choices import (
    ChoiceLine,
    choice_lines,
    frequency_headline,
    frequency_sentences,
    overlap_matrix,
)
from ..views.sink_heads import Point
from ..wording import weights_notice
from . import _markup as m


def hero(report: FrequencyReport) -> str:
    """Return the headline and what was found, in sentences."""
    info, warning = report.model, weights_notice(report.model)
    notice = f'<p class="warning" role="note">{m.text(warning)}</p>' if warning else ""
    facts = (
        f"{info.architecture} · {info.n_layers} layers × {info.n_heads} query heads × {report.n_chunks} chunks · "
        f"{report.n_tokens:,} tokens"
    )
    return (
        f'<div class="hero"><p class="kicker">Frequency chunks of <b>{m.text(info.model_id, 120)}</b></p>'
        f'<h1>{m.text(frequency_headline(report))}</h1><p class="facts">{m.text(facts)}</p>{notice}</div>'
        f"{findings(report)}"
    )


def findings(report: FrequencyReport) -> str:
    """Return what was found, in sentences."""
    items = "".join(f"<li>{m.text(sentence, 400)}</li>" for sentence in frequency_sentences(report))
    return f'<div class="panel"><ul class="findings">{items}</ul></div>'


def chunks_section(report: FrequencyReport) -> str:
    """Return the map of agreement, its course over wavelengths, and the grids by head."""
    lede = (
        f"Contextual agreement: the share of a query's top {report.budget} keys that one chunk's partial logit finds "
        "alone. A chunk is one pair of dimensions that RoPE turns together, at one frequency."
    )
    found = chunk_map(report)
    if found is None:
        body = m.panel(m.not_measured("no sampled query sees twice as many keys as the budget"))
        return m.section("frequency-chunks", "Frequency chunks", lede, body)
    note = (
        '<p class="note">Right of the dotted line a chunk turns less than once in the prompt. An empty cell was not '
        "measured; it is not 0.</p>"
    )
    left = m.panel(m.chart("frequency-map", map_height(len(found.names))) + note, "Every head")
    curves = m.chart("frequency-waves", 340) if chunk_curves(report) else m.not_measured("wavelengths are unknown")
    grids = chunk_grids(report)
    select = (
        '<div class="controls"><label for="frequency-grid-choice">Show</label>'
        '<select id="frequency-grid-choice" data-for="frequency-grid"></select></div>'
    )
    by_head = select + m.chart("frequency-grid", heatmap_height(len(grids[0].layers)))
    right = f'<div class="stack">{m.panel(curves, "By frequency")}{m.panel(by_head, "By head")}</div>'
    return m.section("frequency-chunks", "Frequency chunks", lede, f'<div class="two">{left}{right}</div>')


def choices_section(report: FrequencyReport) -> str:
    """Return how well cheap choices of keys do, beside the paper's figures."""
    lede = (
        "Compound agreement: the share of a query's top K keys that a method picks as its K keys. Dominant chunks were "
        "ranked on other prompts."
    )
    lines = choice_lines(report)
    if not lines:
        body = m.panel(m.not_measured("there were no other prompts to try the chunks on"))
        return m.section("frequency-choices", "Choosing keys", lede, body)
    columns = ("Method", *(f"{budget:,} keys" for budget in report.budgets), "Paper, 256 keys")
    right = tuple(range(1, len(columns)))
    table = m.table(columns, map(_row, lines), right=right)
    note = (
        f"Intervals over {report.n_held_out} prompts in the chart. The paper's heads have 64 chunks, and a quarter of "
        "them stands beside a quarter here; its prompts are longer, so compare a column whose random keys agree as "
        "little as the paper's."
    )
    chart = m.panel(m.chart("frequency-choices", 460))
    listed = m.panel(table + f'<p class="note">{m.text(note)}</p>', "Top keys found")
    return m.section("frequency-choices", "Choosing keys", lede, f'<div class="stack">{chart}{listed}</div>')


def _row(line: ChoiceLine) -> tuple[str, ...]:
    paper = "—" if line.paper is None else f"{line.paper:.1f}%"
    return (m.text(line.title), *map(_percent, line.points), paper)


def _percent(item: Point) -> str:
    return "—" if item.value is None else f"{item.value:.1%}"


def tasks_section(report: FrequencyReport) -> str:
    """Return the overlap of dominant chunks between tasks."""
    lede = (
        f"Overlap of each head's {report.overlap_size} dominant chunks between tasks, mean over heads. The diagonal "
        "compares two halves of one task's prompts: how stable the ranking is with half of the queries."
    )
    matrix = overlap_matrix(report)
    if matrix is None:
        body = m.panel(m.not_measured("a task needs at least two prompts"))
        return m.section("frequency-tasks", "Across tasks", lede, body)
    note = f'<p class="note">Two random sets of {matrix.size} chunks share {matrix.chance:.0%} of them.</p>'
    chart = m.panel(m.chart("frequency-overlap", overlap_height(len(matrix.tasks))) + note)
    return m.section("frequency-tasks", "Across tasks", lede, chart)


def definitions_section(report: FrequencyReport) -> str:
    """Return how everything was measured."""
    queries = (
        f"{report.queries} a prompt at most, drawn by seed from those that see twice as many keys as the largest budget"
    )
    rows = (
        ("Pairs", f"{report.pairing}; {report.rotary_dims} of {report.model.head_dim} dimensions turn"),
        ("Queries", queries),
        ("Budget of the ranking", f"{report.budget} keys; random keys agree on {_share(report.chance)}"),
        ("Dominant", f"agreement above {report.dominant_threshold:.0%} (2602.03152)"),
        ("Low frequency", "a full turn is longer than the prompt; shares are of the agreement above chance"),
        ("Random keys", "exact: K over the keys that the query sees"),
        ("SnapKV", "attention of the 32 queries before, averaged over 5 keys; the last 32 keys (or K / 2) always kept"),
        ("Random chunks", "drawn for every prompt and head, as many as the most dominant ones"),
        ("Ranked on", f"{report.n_prompts} prompts of at most {report.context:,} tokens"),
        ("Tried on", f"{report.n_held_out} other prompts"),
        *(("Note", note) for note in report.notes),
    )
    items = "".join(f"<dt>{m.text(name)}</dt><dd>{m.text(value)}</dd>" for name, value in rows)
    lede = "What each number is."
    return m.section("frequency-definitions", "Definitions", lede, m.panel(f"<dl class=dl>{items}</dl>"))


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.1%}"
