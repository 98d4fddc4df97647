"""Edge attribution patching: estimates for every edge from what writes to the residual stream to what reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import TaskError, UnsupportedModelError
from ..batches import PromptSet
from ..sweep.alternatives import OtherRun
from ..sweep.chunks import Chunk, chunks
from ..sweep.metrics import Metric, metric_named
from .gradients import Key, Traced, stop_at, trace

if TYPE_CHECKING:
    from ...models._base import Scope

TOLERANCE = 1e-3
"""Largest part of an attention output that heads and a bias may leave unexplained."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Estimates for every edge of a model's graph.

    Attributes:
        sources: what writes to the residual stream, in order: `embedding`, `L0H0`, …, `mlp 0`, `L1H0`, ….
        targets: what reads it: `L0H0 query`, `L0G0 key`, `L0G0 value`, `mlp 0`, …, `logits`.
        scores: `[sources, targets]` mean over prompts of the estimated change of the metric when the edge alone
            carries the other run's value; NaN where the source does not come before the target.
        baseline: `[prompts]` the metric without edits.
        steps: gradients that were averaged.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    scores: np.ndarray
    baseline: np.ndarray
    steps: int

    def top(self, n: int) -> list[tuple[str, str, float]]:
        """Return the edges of largest |score|, largest first."""
        flat = np.where(np.isnan(self.scores), 0.0, np.abs(self.scores)).ravel()
        order = np.argsort(-flat, kind="stable")[:n]
        rows, columns = np.unravel_index(order, self.scores.shape)
        return [
            (self.sources[i], self.targets[j], float(self.scores[i, j])) for i, j in zip(rows, columns, strict=True)
        ]


def attribute_edges(
    scope: Scope,
    prompts: PromptSet,
    *,
    metric: str | Metric = "logit_difference",
    column: str = "corrupt_ids",
    base: str = "input_ids",
    steps: int = 1,
    batch_tokens: int = 4096,
) -> Edges:
    """Score every edge by (other − own) output of its source times the metric's gradient at its target's input.

    With one step the gradient is that of the prompts (EAP, 2310.10348); with more it is averaged over inputs between
    the other run's embeddings and the prompts' (EAP-IG, 2403.17806; five steps there).

    Args:
        scope: a loaded transformers model whose heads and MLPs add straight to the residual stream.
        prompts: pairs.
        metric: a differentiable one.
        column: the other run's tokens.
        base: the prompts that run.
        steps: gradients on the way.
        batch_tokens: tokens in a forward at most.

    Raises:
        TaskError: no steps, a column is missing, or pairs of different lengths.
        UnsupportedModelError: a norm stands between heads and the residual stream, or a part was not found.

    Example:
        >>> import attnscope, datasets
        >>> pairs = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]], "corrupt_ids": [[0, 6, 7]],
        ...                                     "answer_ids": [[11]], "wrong_ids": [[12]]})
        >>> attribute_edges(attnscope.load(device="cpu"), pairs).scores.shape
        (73, 137)
    """
    if steps < 1:
        raise TaskError("steps of edge attribution", found=steps, expected="at least 1")
    chosen, other = metric_named(metric), OtherRun(column)
    graph = Graph(scope)
    total = torch.zeros(len(graph.sources), len(graph.targets), dtype=torch.float64)
    baseline = np.full(len(prompts), np.nan)
    most = max(1, batch_tokens // max(len(ids) for ids in prompts[base]))
    for chunk in chunks(
        prompts, [chosen], "all", base, context_length=scope.info.context_length, most=most, device=scope.device
    ):
        here = trace(scope, chunk, chunk.ids, graph.keys, chosen)
        there = trace(scope, chunk, other.ids(chunk), graph.keys, chosen)
        change = graph.outputs(there) - graph.outputs(here)
        assert here.metric is not None
        baseline[list(chunk.prompts)] = here.metric.double().cpu().numpy()
        clean, corrupt = (run.values["block_input", 0] for run in (here, there))
        for step in range(1, steps + 1):
            if steps == 1:
                run = here
            else:
                between = corrupt + step / steps * (clean - corrupt)
                run = trace(scope, chunk, chunk.ids, graph.keys, chosen, embedding=between)
            for at, gradients in graph.inputs(run, chunk):
                total[:, at] += torch.einsum("sbtm,ubtm->su", change, gradients).double().cpu() / steps
    scores = (total / len(prompts)).numpy()
    scores[~graph.reachable()] = np.nan
    return Edges(tuple(graph.sources), tuple(graph.targets), scores, baseline, steps)


class Graph:
    """A model as writers and readers of its residual stream."""

    def __init__(self, scope: Any) -> None:
        info = scope.info
        self.scope, self.info = scope, info
        if len(info.attention_layers) != info.n_layers:
            raise UnsupportedModelError(
                f"edges of {info.model_id}",
                found=f"softmax attention in {len(info.attention_layers)} of {info.n_layers} blocks",
                expected="every block",
            )
        self.sources, self.source_depth = ["embedding"], [-1.0]
        self.targets: list[str] = []
        self.target_depth: list[float] = []
        parallel = [self._parallel(layer) for layer in range(info.n_layers)]
        for layer in range(info.n_layers):
            self.sources += [f"L{layer}H{head}" for head in range(info.n_heads)] + [f"mlp {layer}"]
            self.source_depth += [float(layer)] * info.n_heads + [layer + 0.5]
            self.targets += [f"L{layer}H{head} query" for head in range(info.n_heads)]
            self.targets += [
                f"L{layer}G{group} {slot}" for slot in ("key", "value") for group in range(info.n_kv_heads)
            ]
            self.targets += [f"mlp {layer}"]
            self.target_depth += [float(layer)] * (info.n_heads + 2 * info.n_kv_heads)
            self.target_depth += [layer if parallel[layer] else layer + 0.5]
        self.targets, self.target_depth = [*self.targets, "logits"], [*self.target_depth, float(info.n_layers)]
        layers = range(info.n_layers)
        self.keys: list[Key] = [
            ("block_input", 0),
            *((name, layer) for layer in layers for name in ("q", "k", "v", "z")),
            *((site, layer) for layer in layers for site in ("block_input", "mlp_output", "mlp_norm_input")),
            ("attention_output", 0),
            ("final_norm_input", info.n_layers),
        ]
        self.keys = list(dict.fromkeys(self.keys))

    @property
    def slots(self) -> int:
        """Readers in a block's attention: queries of H heads, keys and values of G KV heads."""
        return int(self.info.n_heads + 2 * self.info.n_kv_heads)

    def first_target(self, layer: int) -> int:
        """Return the column of a block's first target; that of the logits for the layer behind the last one."""
        return layer * (self.slots + 1)

    def _parallel(self, layer: int) -> bool:
        """Whether attention and MLP of a block read the same stream (GPT-NeoX)."""
        block = self.scope.blocks[layer]
        return bool(getattr(block, "use_parallel_residual", False)) or (
            self.scope.parts.blocks[layer].attention_norm is self.scope.parts.blocks[layer].mlp_norm
        )

    def reachable(self) -> np.ndarray:
        """Return `[sources, targets]` bool: whether the source writes before the target reads."""
        return np.array(self.source_depth)[:, None] < np.array(self.target_depth)[None, :]

    def outputs(self, run: Traced) -> Tensor:
        """Return what every source writes, `[sources, B, T, M]`; biases are left out, they are the same in both runs.

        Raises:
            UnsupportedModelError: heads do not add straight to the stream.
        """
        written = [run.values["block_input", 0][None]]
        for layer in range(self.info.n_layers):
            heads = self.heads(run.values["z", layer], layer)
            if layer == 0:
                self.check(run.values["attention_output", 0], heads.sum(0))
            written += [heads, run.values["mlp_output", layer][None]]
        return torch.cat(written)

    def heads(self, z: Tensor, layer: int) -> Tensor:
        """Return what every head of a layer writes, `[H, B, T, M]`, from its z `[B, H, T, Dv]`."""
        weight = self.scope.output_projection(layer).to(z)
        return torch.einsum("bhtd,hdm->hbtm", z, weight) * self.scope.parts.blocks[layer].scale

    def check(self, output: Tensor, heads: Tensor) -> None:
        """Compare an attention output `[B, T, M]` with the sum over its heads.

        Raises:
            UnsupportedModelError: they differ by more than a bias.
        """
        left = (output - heads).flatten(0, 1)
        unexplained = float((left - left.mean(0)).norm() / output.norm().clamp_min(1e-12))
        if unexplained > TOLERANCE:
            raise UnsupportedModelError(
                f"edges of {self.info.model_id}",
                found=f"{unexplained:.0%} of the first attention output that is not a sum over heads",
                expected="heads that add straight to the residual stream",
                fix="Use attribution patching of nodes (`attribute`), which needs no such sum.",
            )

    def inputs(self, run: Traced, chunk: Chunk) -> Any:
        """Yield (columns, the metric's gradient at these targets' inputs `[targets, B, T, M]`)."""
        for layer in range(self.info.n_layers):
            column, slots = self.first_target(layer), self.slots
            yield list(range(column, column + slots)), self._attention_inputs(run, chunk, layer)
            yield [column + slots], run.gradients["mlp_norm_input", layer][None]
        yield [self.first_target(self.info.n_layers)], run.gradients["final_norm_input", self.info.n_layers][None]

    def _attention_inputs(self, run: Traced, chunk: Chunk, layer: int) -> Tensor:
        """Return the gradient at the input of each head's queries, and each KV head's keys and values.

        The block is run up to its attention with one copy of its input for each of them.
        """
        h, g = self.info.n_heads, self.info.n_kv_heads
        x = run.values["block_input", layer]
        b = len(x)
        copies = x.repeat(h + 2 * g, 1, 1).requires_grad_()
        with torch.enable_grad():
            with stop_at(self.scope, layer, lambda at, _site, own: copies if at == layer else own) as calls:
                self.scope.model(input_ids=chunk.ids, use_cache=False)
            call = calls[0]
            parts = [
                (call.q, run.gradients["q", layer], 0, h),
                (call.k, run.gradients["k", layer], h, g),
                (call.v, run.gradients["v", layer], h + g, g),
            ]
            product = torch.zeros((), device=x.device)
            for tensor, gradient, first, count in parts:
                rows = tensor.view(h + 2 * g, b, *tensor.shape[1:])[first : first + count]
                index = torch.arange(count, device=x.device)
                product = product + (rows[index, :, index] * gradient.transpose(0, 1)).sum()
            (found,) = torch.autograd.grad(product, copies)
        return found.view(h + 2 * g, *x.shape)
