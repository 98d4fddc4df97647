"""Circuits as sets of edges, `[sources, targets]` bool: the best of a ranking, as many as a size asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from ...analyses.faithfulness import MIB_SIZES
from ...core.errors import StatisticsError, UnknownNameError
from .edges import Edges

if TYPE_CHECKING:
    from ...core.model_info import ModelInfo

Ranking = Literal["gain", "magnitude"]
"""`gain`: edges whose loss would lower the metric most come first (MIB's CPR); `magnitude`: those of largest |score|
(MIB's CMD)."""

RANKINGS: Final[tuple[Ranking, ...]] = get_args(Ranking)


def edge_counts(edges: Edges, sizes: Sequence[float] = MIB_SIZES) -> tuple[int, ...]:
    """Return how many edges each size keeps: its share of all edges, rounded down as MIB's code does (2504.13151).

    Raises:
        StatisticsError: a size lies outside 0..1.

    Example:
        >>> found = Edges(("embedding", "L0H0"), ("logits",), np.array([[0.1], [2.0]]), np.zeros(1), 1)
        >>> edge_counts(found, (0.2, 0.5, 1.0))
        (0, 1, 2)
    """
    wrong = [size for size in sizes if not 0 <= size <= 1]
    if wrong:
        raise StatisticsError("circuit sizes", found=wrong, expected="shares of all edges, 0..1")
    total = int((~np.isnan(edges.scores)).sum())
    return tuple(int(size * total) for size in sizes)


def top_edges(edges: Edges, n: int, ranking: Ranking = "magnitude") -> np.ndarray:
    """Return the n best edges as `[sources, targets]` bool; ties go to the earlier source, then the earlier target.

    A score is the metric's change when the edge carries the other run's value, so that an edge that helps has a
    negative one. Edges on no whole path count, though they change nothing (MIB prunes them
    after counting).

    Raises:
        StatisticsError: fewer than 0 edges, or more than the model has.
        UnknownNameError: no such ranking.

    Example:
        >>> found = Edges(("embedding", "L0H0"), ("logits",), np.array([[-0.1], [2.0]]), np.zeros(1), 1)
        >>> top_edges(found, 1).T, top_edges(found, 1, "gain").T
        (array([[False,  True]]), array([[ True, False]]))
    """
    if ranking not in RANKINGS:
        raise UnknownNameError(f"ranking {ranking!r}", expected=f"one of {', '.join(RANKINGS)}")
    scores = edges.scores.ravel()
    exists = ~np.isnan(scores)
    if not 0 <= n <= exists.sum():
        raise StatisticsError("edges of a circuit", found=n, expected=f"0 to {int(exists.sum())}")
    first = np.where(exists, scores if ranking == "gain" else -np.abs(scores), np.inf)
    kept = np.zeros(scores.shape, dtype=bool)
    kept[np.argsort(first, kind="stable")[:n]] = True
    return kept.reshape(edges.scores.shape)


def random_edges(edges: Edges, seed: int = 0) -> Edges:
    """Return the same graph with random scores: the control, whose circuits grow by edges drawn at random.

    Example:
        >>> found = Edges(("embedding", "L0H0"), ("logits",), np.array([[0.1], [np.nan]]), np.zeros(1), 1)
        >>> np.isnan(random_edges(found).scores).T
        array([[False,  True]])
    """
    drawn = np.random.default_rng(seed).permutation(edges.scores.size).reshape(edges.scores.shape) + 1.0
    return replace(edges, scores=np.where(np.isnan(edges.scores), np.nan, -drawn))


def edges_from(edges: Edges, source: str) -> np.ndarray:
    """Return the edges that leave one source, `[sources, targets]` bool.

    Raises:
        UnknownNameError: the graph has no such source.

    Example:
        >>> found = Edges(("embedding", "L0H0"), ("logits",), np.array([[0.1], [2.0]]), np.zeros(1), 1)
        >>> edges_from(found, "L0H0").T
        array([[False,  True]])
    """
    if source not in edges.sources:
        raise UnknownNameError(f"source {source!r}", expected=f"one of {', '.join(edges.sources[:4])}, …")
    kept = np.zeros(edges.scores.shape, dtype=bool)
    kept[edges.sources.index(source)] = True
    return kept & ~np.isnan(edges.scores)


def circuit_nodes(edges: Edges, n: int) -> Sequence[str]:
    """Return the sources of the n best edges, once each, in the model's order.

    Example:
        >>> found = Edges(("embedding", "L0H0"), ("logits",), np.array([[0.1], [2.0]]), np.zeros(1), 1)
        >>> circuit_nodes(found, 1)
        ('L0H0',)
    """
    kept = {source for source, _, _ in edges.top(n)}
    return tuple(source for source in edges.sources if source in kept)


def between_nodes(edges: Edges, info: ModelInfo) -> list[tuple[str, str, float]]:
    """Return edges between heads and MLPs: a head's queries, keys and values together, keys and values by head.

    Keys and values belong to a KV head; each of the query heads that read it gets an equal share of their score.

    Args:
        edges: of a model.
        info: the model.

    Returns:
        (source, target, score), targets named as sources are, and `logits`.
    """
    totals: dict[tuple[str, str], float] = {}
    for column, target in enumerate(edges.targets):
        name, _, slot = target.partition(" ")
        readers = [target]
        if slot == "query":
            readers = [name]
        elif slot in ("key", "value"):
            layer, group = (int(part) for part in name[1:].split("G"))
            first = group * info.group_size
            readers = [f"L{layer}H{head}" for head in range(first, first + info.group_size)]
        for row, source in enumerate(edges.sources):
            score = edges.scores[row, column]
            if not np.isnan(score):
                for reader in readers:
                    key = source, reader
                    totals[key] = totals.get(key, 0.0) + float(score) / len(readers)
    return [(source, target, score) for (source, target), score in totals.items()]
