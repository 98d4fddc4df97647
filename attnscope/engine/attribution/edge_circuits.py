"""Exact runs of circuits of edges: kept edges carry the current run's values, all others another run's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attnscope_kernels import AttentionCall, attend

from ...core.errors import StatisticsError
from ..batches import PromptSet
from ..memory import explained
from ..sweep.alternatives import OtherRun
from ..sweep.chunks import Chunk, chunks
from ..sweep.grow import takes
from ..sweep.metrics import Metric, Readout, metric_named, wide
from .edges import Graph

if TYPE_CHECKING:
    from ...models._base import Scope, Site

_SITES: tuple[Site, ...] = (
    "block_input",
    "attention_norm_input",
    "attention_output",
    "mlp_norm_input",
    "mlp_output",
    "final_norm_input",
)


@dataclass(frozen=True, eq=False)
class EdgeRuns:
    """What circuits of edges do.

    Attributes:
        whole: `[prompts]` the metric of the untouched model.
        empty: `[prompts]` of the other run, which is what no edge gives.
        values: `[prompts, circuits]` of the model in which each circuit alone carries its own values.
    """

    whole: np.ndarray
    empty: np.ndarray
    values: np.ndarray


def run_edge_circuits(
    scope: Scope,
    prompts: PromptSet,
    circuits: Sequence[np.ndarray],
    *,
    metric: str | Metric = "logit_difference",
    column: str = "corrupt_ids",
    base: str = "input_ids",
    implementation: str = "auto",
    batch_tokens: int = 16384,
    progress: Callable[[int, int], None] | None = None,
) -> EdgeRuns:
    """Run every prompt in every circuit: each reader sees kept writers as they are now, dropped ones as in another run.

    The input of a head's queries, keys or values, of an MLP or of the logits is the sum over kept edges of what their
    sources write in this very run, and over dropped edges of what they write in the other run; nothing is linearised.
    Each block reads one copy of its input for each slot of its heads.

    Args:
        scope: a loaded transformers model whose heads and MLPs add straight to the residual stream.
        prompts: pairs.
        circuits: `[sources, targets]` bool each, as named by `engine.attribution.edges.Graph`.
        metric: of the answer.
        column: the other run's tokens.
        base: the prompts that run.
        implementation: kernel implementation.
        batch_tokens: tokens in a forward at most, over all copies (one prompt at the least).
        progress: called with forwards done and forwards in all.

    Raises:
        StatisticsError: a circuit is of another shape, or holds an edge that the model lacks.
        TaskError: a column is missing, or pairs of different lengths.
        UnsupportedModelError: a norm stands between heads and the residual stream, or a part was not found.
        DeviceError: the device ran out of memory.

    Example:
        >>> import attnscope, datasets
        >>> pairs = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]], "corrupt_ids": [[0, 6, 7]],
        ...                                     "answer_ids": [[11]], "wrong_ids": [[12]]})
        >>> scope = attnscope.load(device="cpu")
        >>> every = Graph(scope).reachable()
        >>> found = run_edge_circuits(scope, pairs, [every, np.zeros_like(every)])
        >>> bool(abs(found.values[0] - [found.whole[0], found.empty[0]]).max() < 1e-4)
        True
    """
    chosen, other, graph = metric_named(metric), OtherRun(column), Graph(scope)
    kept = [_checked(circuit, graph) for circuit in circuits]
    tokens = max((len(ids) for ids in prompts[base]), default=1) if base in prompts.column_names else 1
    parts = chunks(
        prompts,
        [chosen],
        "all",
        base,
        context_length=scope.info.context_length,
        most=max(1, batch_tokens // max(1, tokens * graph.slots)),
        device=scope.device,
    )
    found = np.full((len(prompts), 2 + len(kept)), np.nan)
    done, total = 0, len(parts) * (2 + len(kept))
    for chunk in parts:
        there = _Writes(graph, chunk, implementation)
        corrupt = there.logits(other.ids(chunk))
        clean = _Writes(graph, chunk, implementation).logits(chunk.ids)
        readout = Readout(chunk.rows, chunk.targets, None, clean)
        for index in range(2 + len(kept)):
            if index < 2:
                logits = (clean, corrupt)[index]
            else:
                logits = _Circuit(graph, chunk, implementation, there, kept[index - 2]).logits(chunk.ids)
            found[list(chunk.prompts), index] = chosen(logits[None], readout)[0].double().cpu().numpy()
            done += 1
            if progress is not None:
                progress(done, total)
    return EdgeRuns(found[:, 0], found[:, 1], found[:, 2:])


def _checked(circuit: np.ndarray, graph: Graph) -> np.ndarray:
    exists = graph.reachable()
    if circuit.shape != exists.shape or circuit.dtype != bool or (circuit & ~exists).any():
        found = f"{circuit.dtype} {circuit.shape}"
        if circuit.shape == exists.shape and circuit.dtype == bool:
            i, j = np.argwhere(circuit & ~exists)[0]
            found = f"the edge {graph.sources[i]} → {graph.targets[j]}"
        raise StatisticsError(
            f"circuit of edges of {graph.info.model_id}",
            found=found,
            expected=f"bool {exists.shape}, edges from earlier writers to later readers alone",
        )
    return circuit


@dataclass(eq=False)
class _Writes:
    """A run as it is: what every source writes and every reader reads."""

    graph: Graph
    chunk: Chunk
    implementation: str
    written: list[Tensor] = field(default_factory=list)
    read: dict[tuple[Site, int], Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def logits(self, ids: Tensor) -> Tensor:
        """Return logits `[B, A, V]` of the positions that predict the answer."""
        scope, last = self.graph.scope, self.chunk.targets.shape[1]
        options: dict[str, Any] = {"use_cache": False}
        if takes(scope.model, "logits_to_keep"):
            options["logits_to_keep"] = last
        with explained(scope, self.chunk.batch(ids)), scope.attach(self.tap, self.stream, _SITES):
            out: Tensor = scope.model(input_ids=ids, **options).logits[:, -last:]
        return out

    def tap(self, call: AttentionCall) -> Tensor:
        z = attend(call, None, self.implementation).output
        assert z is not None
        self.written.append(self.graph.heads(z, call.layer))
        return z

    def stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        if site == "block_input" and layer:
            return x
        if site == "attention_output":
            if layer == 0:
                self.graph.check(x, self.written[-1].sum(0))
            return x
        if site in ("block_input", "mlp_output"):
            self.written.append(x[None])
        else:
            self.read[site, layer] = x
        return x


class _Circuit(_Writes):
    """A run in which every reader's input is the other run's, changed along kept edges alone."""

    def __init__(self, graph: Graph, chunk: Chunk, implementation: str, other: _Writes, kept: np.ndarray) -> None:
        super().__init__(graph, chunk, implementation)
        self.other = other
        self.kept = torch.from_numpy(kept).to(chunk.ids.device)
        self.change: Tensor | None = None

    def tap(self, call: AttentionCall) -> Tensor:
        """Take each head's queries, keys and values from the copy of its own slot."""
        info, b = self.graph.info, self.chunk.size
        copies = len(call.q) // b
        first, parts = 0, {}
        for name, count in (("q", info.n_heads), ("k", info.n_kv_heads), ("v", info.n_kv_heads)):
            x = getattr(call, name)
            rows = x.view(copies, b, *x.shape[1:])[first : first + count]
            index = torch.arange(count, device=x.device)
            parts[name] = rows[index, :, index].transpose(0, 1)
            first += count
        z = attend(call.replace(**parts), None, self.implementation).output
        assert z is not None
        self.write(self.graph.heads(z, call.layer))
        return z.repeat(copies, 1, 1, 1)

    def stream(self, layer: int, site: Site, x: Tensor) -> Tensor:
        graph = self.graph
        if site == "block_input":
            if layer == 0:
                self.write(x[None])
            return x
        if site == "attention_output":
            return x[: self.chunk.size]
        if site == "mlp_output":
            self.write(x[None])
            return x
        first = graph.first_target(layer) + (graph.slots if site == "mlp_norm_input" else 0)
        targets = slice(first, first + (graph.slots if site == "attention_norm_input" else 1))
        own = self.other.read[site, layer]
        assert self.change is not None
        kept = self.kept[: len(self.change), targets].to(self.change.dtype)
        changed = own[None] + torch.einsum("us,ubtm->sbtm", kept, self.change)
        return changed.flatten(0, 1).to(x.dtype)

    def write(self, x: Tensor) -> None:
        """Note how far the next sources differ from the other run."""
        change = wide(x) - wide(self.other.written[len(self.written)])
        self.written.append(x)
        self.change = change if self.change is None else torch.cat([self.change, change])
