"""A circuit as a graph: rows of depth from the embedding at the bottom to the logits at the top."""

from __future__ import annotations

import plotly.graph_objects as go

from ..style import THEMES, ThemeName
from ..views.circuit_graph import CircuitGraph, GraphEdge, Node
from ..wording import number
from ._layout import axis, layout, plain

STEPS = 14
"""Straight pieces of one curved edge."""
_SYMBOLS = {"head": "circle", "attention": "circle", "mlp": "square", "neuron": "diamond"}


def circuit_graph_figure(graph: CircuitGraph, theme: ThemeName = "light") -> go.Figure:
    """Draw nodes and edges; width is |score|, edges that lower the metric are dotted and in another colour."""
    colours = THEMES[theme]
    figure = go.Figure()
    named = {edge.score >= 0: i for i, edge in reversed(list(enumerate(graph.edges)))}
    for i, edge in reversed(list(enumerate(graph.edges))):
        raises = edge.score >= 0
        figure.add_trace(_edge(edge, colours.accent if raises else colours.strong, i == named[raises]))
    figure.add_trace(
        go.Scatter(
            x=[node.x for node in graph.nodes],
            y=[node.y for node in graph.nodes],
            mode="markers+text",
            text=[plain(node.name) for node in graph.nodes],
            textposition="middle right",
            textfont={"size": 13, "color": colours.text},
            marker={
                "symbol": [_SYMBOLS.get(node.kind, "hexagon") for node in graph.nodes],
                "size": [_size(node, graph) for node in graph.nodes],
                "color": colours.surface,
                "opacity": 1,
                "line": {"width": 2.2, "color": colours.text},
            },
            customdata=[plain(f"{node.name}: |score| of its edges {number(node.total)}") for node in graph.nodes],
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_layout(
        **layout(theme, height=graph_height(graph), showlegend=True),
        xaxis=axis(
            theme,
            "query head, from left to right; MLPs at the right",
            showgrid=False,
            showticklabels=False,
            showline=False,
            range=[-1.1, 1.25],
        ),
        yaxis=axis(
            theme,
            "",
            range=[-0.6, len(graph.rows) - 0.4],
            tickmode="array",
            tickvals=list(range(len(graph.rows))),
            ticktext=[plain(row) for row in graph.rows],
            showline=False,
            showgrid=False,
        ),
    )
    return figure


def graph_height(graph: CircuitGraph) -> int:
    """Return the figure's height in pixels."""
    return 130 + 62 * max(4, len(graph.rows))


def _size(node: Node, graph: CircuitGraph) -> float:
    most = max(other.total for other in graph.nodes) or 1.0
    return 11 + 13 * (node.total / most) ** 0.5


def _edge(edge: GraphEdge, colour: str, named: bool) -> go.Scatter:
    x, y = _curve(edge.source, edge.target)
    raises = edge.score >= 0
    words = plain(f"{edge.source.name} → {edge.target.name}: {number(edge.score)}")
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": colour, "width": 0.8 + 5.2 * edge.weight, "dash": "solid" if raises else "dot"},
        opacity=0.35 + 0.5 * edge.weight,
        name="score above 0" if raises else "score below 0",
        legendgroup=str(raises),
        showlegend=named,
        hovertemplate=f"{words}<extra></extra>",
    )


def _curve(a: Node, b: Node) -> tuple[list[float], list[float]]:
    """Bow an edge that skips rows, so that it does not run through the nodes between."""
    skipped = max(0, abs(b.y - a.y) - 1)
    side = 1 if a.x + b.x >= 0 else -1
    middle = (a.x + b.x) / 2
    bow = min(max(side * min(0.55, 0.14 * skipped), -1 - middle), 1.12 - middle)
    steps = [i / STEPS for i in range(STEPS + 1)]
    return [a.x + (b.x - a.x) * t + bow * 4 * t * (1 - t) for t in steps], [a.y + (b.y - a.y) * t for t in steps]
