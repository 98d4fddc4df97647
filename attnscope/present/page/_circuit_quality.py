"""Circuits standing alone, what two share, and the graph of edges."""

from __future__ import annotations

from ...core.circuit_report import CircuitReport
from ..figures.circuit_faithfulness import FAITHFULNESS_HEIGHT
from ..figures.circuit_graph import graph_height
from ..tokens import visible
from ..views.circuit_graph import circuit_graphs
from ..views.circuit_quality import QualityRow, faithfulness_lines, overlap_rows, quality_rows
from ..views.circuit_summary import p_words
from ..wording import number
from . import _markup as m
from ._circuits import names


def alone_section(report: CircuitReport) -> str:
    """Return faithfulness over size, completeness and minimality; nothing where neither was measured."""
    lines, rows = faithfulness_lines(report), quality_rows(report)
    if not lines and not rows:
        return ""
    lede = (
        "Everything but the circuit ablated. f = (m(circuit) − m(nothing left)) / (m(model) − m(nothing left)): 1 is "
        "the whole model, 0 is nothing, and both ends can be passed."
    )
    parts = []
    if lines:
        note = (
            "CPR is the integral of f, CMD that of |1 − f|: trapezoids between the sizes measured, on a linear axis as "
            "in MIB; the axis here is logarithmic."
        )
        chart = m.chart("circuits-faithfulness", FAITHFULNESS_HEIGHT)
        parts.append(m.panel(f'{chart}<p class="note">{m.text(note)}</p>', "Faithfulness over circuit size"))
    if rows:
        parts.append(m.panel(_quality(rows), "Faithfulness, completeness and minimality of chosen circuits"))
    sources = " ".join(m.citation(i, f"https://arxiv.org/abs/{i}") for i in ("2504.13151", "2211.00593"))
    body = f'<div class="stack">{"".join(parts)}</div><p class="note">Sources: {sources}.</p>'
    return m.section("circuits-alone", "Standing alone", lede, body)


def _quality(rows: list[QualityRow]) -> str:
    cells = (
        (
            m.text(row.name),
            m.text(row.metric),
            number(row.model),
            number(row.circuit),
            number(row.empty),
            number(row.faithfulness),
            "—" if row.worst is None else f"{number(row.worst[1])}, {m.text(row.worst[0], 80)}",
            "—" if row.least is None else f"{number(row.least[1])}, {m.text(row.least[0])}",
        )
        for row in rows
    )
    columns = ("Circuit", "Metric", "Model", "Circuit alone", "Nothing", "f", "Largest gap", "Least change")
    note = (
        "Largest gap: over the subsets tried, between the circuit and the model without the subset; near 0 is "
        "complete. Least change: the unit whose removal changes the circuit least, at its best over the sets tried."
    )
    return m.table(columns, cells, right=range(2, 6)) + f'<p class="note">{m.text(note)}</p>'


def overlap_section(report: CircuitReport) -> str:
    """Return what circuits share, against chance; nothing where none were compared."""
    rows = overlap_rows(report)
    if not rows:
        return ""
    lede = (
        "Units in both circuits, against circuits placed at random: anywhere, or in the same layers. Both laws are "
        "exact."
    )
    columns = ("Circuits", "Sizes", "Shared", "By chance", "p", "Same layers", "p", "Jaccard", "Which")
    cells = (
        (
            m.text(row.name),
            f'<span class="nobreak">{row.sizes[0]:,} and {row.sizes[1]:,} of {row.n_units:,}</span>',
            f"{len(row.shared):,}",
            number(row.expected),
            m.text(p_words(row.p)),
            number(row.layer_expected),
            m.text(p_words(row.layer_p)),
            number(row.jaccard),
            names(row.shared),
        )
        for row in rows
    )
    return m.section("circuits-overlap", "Overlap", lede, m.panel(m.table(columns, cells, right=range(1, 8))))


def graph_section(report: CircuitReport) -> str:
    """Return one graph a task; nothing where no edges were scored."""
    graphs = circuit_graphs(report)
    if not graphs:
        return ""
    method = f" by {visible(report.edge_method, 60)}" if report.edge_method else ""
    lede = (
        f"Edges with the largest |score|{method}: from the embedding at the bottom up to the logits. A wider line is a "
        "larger score; dotted edges lower the metric."
    )
    panels = "".join(
        m.panel(m.chart(f"circuits-graph-{i}", graph_height(graph)), graph.task) for i, graph in enumerate(graphs)
    )
    layout = "two" if len(graphs) > 1 else "stack"
    return m.section("circuits-graph", "Graph", lede, f'<div class="{layout}">{panels}</div>')
