"""The graph of a circuit, laid out by depth: embedding at the bottom, logits at the top."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...core.circuit_report import CircuitReport, Edge
from ...core.errors import UnknownHeadError
from ...core.units import Unit
from ..tokens import visible

ENDS = ("embedding", "logits")
GAP = 0.3
"""Least distance of two nodes in a row, where the row has room."""


@dataclass(frozen=True)
class Node:
    """One node; `x` runs from -1 to 1, `y` counts rows from the bottom, `total` sums the |score| of its edges."""

    name: str
    kind: str
    x: float
    y: int
    total: float


@dataclass(frozen=True)
class GraphEdge:
    """One edge between two nodes of the view; `weight` is |score| over the largest, 0..1."""

    source: Node
    target: Node
    score: float
    weight: float


@dataclass(frozen=True)
class CircuitGraph:
    """One task's graph.

    Attributes:
        rows: name of each row, from the bottom: embedding, then attention and MLP of blocks that have a node, logits.
    """

    task: str
    nodes: tuple[Node, ...]
    edges: tuple[GraphEdge, ...]
    rows: tuple[str, ...]


def circuit_graphs(report: CircuitReport, most: int = 40) -> list[CircuitGraph]:
    """Return one graph a task, of its edges with the largest |score|.

    Args:
        report: a circuit report.
        most: edges a task.
    """
    graphs = []
    for task in dict.fromkeys(edge.task for edge in report.edges):
        own = sorted((edge for edge in report.edges if edge.task == task), key=lambda edge: -abs(edge.score))[:most]
        largest = max(abs(edge.score) for edge in own) or 1.0
        nodes, rows = _placed(
            dict.fromkeys(name for edge in own for name in (edge.source, edge.target)), own, report.model.n_heads
        )
        edges = tuple(
            GraphEdge(nodes[edge.source], nodes[edge.target], edge.score, abs(edge.score) / largest) for edge in own
        )
        graphs.append(CircuitGraph(visible(task, 60), tuple(nodes.values()), edges, rows))
    return graphs


def _placed(names: Iterable[str], edges: Sequence[Edge], n_heads: int) -> tuple[dict[str, Node], tuple[str, ...]]:
    places = {name: _place(name) for name in names}
    keys = sorted({place[:2] for place in places.values()})
    total = {name: sum(abs(e.score) for e in edges if name in (e.source, e.target)) for name in places}
    nodes = {}
    for y, key in enumerate(keys):
        row = sorted((name for name, place in places.items() if place[:2] == key), key=lambda name: places[name])
        columns = _spread([_column(name, n_heads) for name in row])
        for name, x in zip(row, columns, strict=True):
            nodes[name] = Node(visible(name), _kind(name), x, y, total[name])
    return nodes, tuple(_row_name(key) for key in keys)


def _column(name: str, n_heads: int) -> float:
    """Return where a node wants to stand: heads by their index, MLPs at the right, the ends in the middle."""
    unit = _unit(name)
    if unit is None or unit.module == "attention":
        return 0.0
    return -0.95 + 1.6 * (unit.index + 0.5) / n_heads if unit.module == "head" else 0.95


def _spread(wanted: Sequence[float]) -> list[float]:
    """Return ascending columns with room for a name between them, inside -1..1."""
    gap = min(GAP, 2 / max(1, len(wanted)))
    columns: list[float] = []
    for x in wanted:
        columns.append(max(x, columns[-1] + gap) if columns else x)
    over = max(0.0, columns[-1] - 1.0)
    for i in range(len(columns) - 1, -1, -1):
        columns[i] = min(columns[i], columns[i + 1] - gap) if i + 1 < len(columns) else columns[i] - over
    return columns


def _kind(name: str) -> str:
    unit = _unit(name)
    return name if name in ENDS or unit is None else unit.module


def _place(name: str) -> tuple[float, int, int, str]:
    """Return (block, attention or MLP, index, name); -1 is below all blocks."""
    if name == "embedding":
        return -1, 0, 0, name
    if name == "logits":
        return float("inf"), 0, 0, name
    unit = _unit(name)
    if unit is None:
        return float("inf"), -1, 0, name
    return unit.layer, int(unit.module in ("mlp", "neuron")), unit.index, name


def _row_name(key: tuple[float, int]) -> str:
    block, side = key
    if block == -1:
        return "embedding"
    if block == float("inf"):
        return "logits" if side == 0 else "other"
    return f"{'MLP' if side else 'attention'} {block:g}"


def _unit(name: str) -> Unit | None:
    try:
        return Unit.parse(name)
    except UnknownHeadError:
        return None
