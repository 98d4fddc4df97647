"""MIB's curve: how much of the metric circuits of growing numbers of edges keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...analyses.faithfulness import MIB_SIZES, Areas, areas, faithfulness
from ..batches import PromptSet
from ..sweep.metrics import Metric
from .circuit_edges import Ranking, edge_counts, top_edges
from .edge_circuits import EdgeRuns, run_edge_circuits
from .edges import Edges

if TYPE_CHECKING:
    from ...models._base import Scope


@dataclass(frozen=True, eq=False)
class EdgeFaithfulness:
    """A curve over circuit sizes.

    Attributes:
        sizes: shares of all edges.
        counts: edges of each circuit.
        ranking: how edges were ordered.
        runs: metric of every prompt: untouched, of the other run, and in each circuit.
    """

    sizes: tuple[float, ...]
    counts: tuple[int, ...]
    ranking: Ranking
    runs: EdgeRuns

    @property
    def f(self) -> np.ndarray:
        """Return faithfulness at each size, from means over prompts; NaN where both runs have the same mean."""
        runs = self.runs
        return faithfulness(runs.values.mean(0), float(runs.empty.mean()), float(runs.whole.mean()))

    @property
    def areas(self) -> Areas:
        """Return CPR and CMD.

        Raises:
            StatisticsError: fewer than two sizes, or a faithfulness that is not defined.
        """
        return areas(self.sizes, self.f)


def edge_faithfulness(
    scope: Scope,
    pairs: PromptSet,
    edges: Edges,
    sizes: Sequence[float] = MIB_SIZES,
    *,
    ranking: Ranking = "gain",
    metric: str | Metric = "logit_difference",
    column: str = "corrupt_ids",
    base: str = "input_ids",
    implementation: str = "auto",
    batch_tokens: int = 16384,
    progress: Callable[[int, int], None] | None = None,
) -> EdgeFaithfulness:
    """Run the circuit of the best edges at each size, and measure how faithful it is (2504.13151).

    The best n edges by score alone are taken, as MIB does, whether or not they form paths. MIB's leaderboard ranks by
    `gain` for CPR and by `magnitude` for CMD. Score edges on other pairs than these.

    Args:
        scope: a loaded transformers model whose heads and MLPs add straight to the residual stream.
        pairs: with the metric's columns.
        edges: scores, of `attribute_edges` or `random_edges`.
        sizes: shares of all edges, ascending.
        ranking: see `Ranking`.
        metric: of the answer.
        column: the other run's tokens.
        base: the prompts that run.
        implementation: kernel implementation.
        batch_tokens: as `run_edge_circuits`.
        progress: called with forwards done and forwards in all.

    Raises:
        StatisticsError: a size outside 0..1, or scores of another model.
        TaskError, UnsupportedModelError, DeviceError: as `run_edge_circuits`.

    Example:
        >>> import attnscope, datasets
        >>> from attnscope.engine.attribution.edges import attribute_edges
        >>> pairs = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]], "corrupt_ids": [[0, 6, 7]],
        ...                                     "answer_ids": [[11]], "wrong_ids": [[12]]})
        >>> scope = attnscope.load(device="cpu")
        >>> found = edge_faithfulness(scope, pairs, attribute_edges(scope, pairs), (0.0, 0.5, 1.0))
        >>> found.counts, bool(abs(found.f[[0, 2]] - [0, 1]).max() < 1e-3)
        ((0, 2278, 4557), True)
    """
    counts = edge_counts(edges, sizes)
    runs = run_edge_circuits(
        scope,
        pairs,
        [top_edges(edges, count, ranking) for count in counts],
        metric=metric,
        column=column,
        base=base,
        implementation=implementation,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    return EdgeFaithfulness(tuple(sizes), counts, ranking, runs)
