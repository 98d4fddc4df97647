"""Trained gates as statistics: per KV head, per query head, and the losses of every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ...analyses import hardkuma as closed
from ...analyses.kv_choice import reduce_to_kv
from ...core.model_info import ModelInfo
from ...core.names import Variable
from ...core.statistics import dataset
from ..batches import PromptSet, fingerprint
from .duo_attention import DuoAttention
from .hardkuma import HardKuma
from .targets import query_positions, read_site
from .train import Trained, train

if TYPE_CHECKING:
    from ...models._base import Scope

KV, HEAD, STEP = ("layer", "kv_head"), ("layer", "head"), ("step",)


def train_gates(
    scope: Scope,
    prompts: PromptSet,
    method: DuoAttention | HardKuma,
    *,
    checkpoint: str | Path | None = None,
    every: float = 5.0,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Train gates and return them as statistics; arguments and errors as in `train.train`.

    Returns:
        With DuoAttention `duo_gate [layer, kv_head]` and `duo_gate_head [layer, head]`. With HardKuma `hardkuma_a`,
        `hardkuma_b`, `hardkuma_keep` = P(z ≠ 0), `hardkuma_mean` = b·B(1 + 1/a, b), and `hardkuma_full` (1 where that
        is above 0.5, and in the first attention layer), each `[layer, kv_head]`, and `hardkuma_mean_head [layer,
        head]`. With both the curves `[step]`. Gates trained per query head are reduced to KV heads by the largest.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 9]], "query_positions": [[2, 3]]})
        >>> method = DuoAttention(steps=2, sink_tokens=1, recent_tokens=1)
        >>> train_gates(attnscope.load(backend="toy"), prompts, method)["duo_gate"].shape
        (2, 2)
    """
    trained = train(scope, prompts, method, checkpoint=checkpoint, every=every, progress=progress)
    lengths = [len(ids) for ids in prompts["input_ids"]]
    attrs: dict[str, Any] = {field.name: getattr(method, field.name) for field in fields(method)}
    last = min(len(lengths), method.steps)
    attrs |= {
        "method": method.name,
        "source": method.source,
        "kv_reduction": "none: one gate a KV head" if method.per == "kv_head" else "max",
        "read_site": read_site(scope),
        "model_id": scope.info.model_id,
        "revision": scope.info.revision or "",
        "dtype": scope.info.dtype,
        "n_prompts": len(lengths),
        "tokens": max(lengths),
        "answer_tokens": sum(len(row) for row in query_positions(prompts)),
        "fingerprint": fingerprint(prompts),
        "losses_over_steps": last,
        **{f"final_{name}": float(curve[-last:].mean()) for name, curve in trained.curves.items()},
    }
    build = _duo if isinstance(method, DuoAttention) else _hardkuma
    values = [*build(scope.info, trained, method.per == "query_head"), *_curves(trained, method)]
    return dataset(scope.info, values, attrs=attrs)


def _duo(info: ModelInfo, trained: Trained, by_query: bool) -> list[tuple[Variable, np.ndarray]]:
    gate, source = trained.gates["gate"], DuoAttention.source
    heads = gate if by_query else gate.repeat(info.group_size, axis=1)
    return [
        (Variable("duo_gate", KV, "1", "share of full attention", source), reduce_to_kv(heads, info.n_kv_heads)),
        (Variable("duo_gate_head", HEAD, "1", "share of full attention", source), heads),
    ]


def _hardkuma(info: ModelInfo, trained: Trained, by_query: bool) -> list[tuple[Variable, np.ndarray]]:
    a, b = trained.gates["a"], trained.gates["b"]
    mean, source = closed.class_statistic(a, b), HardKuma.source
    heads = mean if by_query else mean.repeat(info.group_size, axis=1)
    if by_query:  # a KV head takes a and b of its query head that needs the context most
        best = mean.reshape(len(mean), info.n_kv_heads, -1).argmax(-1) + np.arange(info.n_kv_heads) * info.group_size
        a, b, mean = (np.take_along_axis(x, best, 1) for x in (a, b, mean))
    full = (mean > 0.5).astype(float)
    full[0] = 1.0
    return [
        (Variable("hardkuma_a", KV, "1", "first shape parameter", source), a),
        (Variable("hardkuma_b", KV, "1", "second shape parameter", source), b),
        (
            Variable("hardkuma_keep", KV, "1", "probability of a gate above 0", source),
            1 - closed.zero_probability(a, b),
        ),
        (Variable("hardkuma_mean", KV, "1", "class statistic b·B(1 + 1/a, b)", source), mean),
        (Variable("hardkuma_full", KV, "1", "retrieval head; the first layer always is", source), full),
        (Variable("hardkuma_mean_head", HEAD, "1", "class statistic b·B(1 + 1/a, b)", source), heads),
    ]


def _curves(trained: Trained, method: DuoAttention | HardKuma) -> list[tuple[Variable, np.ndarray]]:
    words = {
        "distillation": ("distillation_loss", "mean squared change of final hidden states"),
        "penalty": ("penalty", "regularisation or constraint, as added to the loss"),
        "density": ("density", "mean probability of a gate above 0"),
        "constraint": ("constraint", "weight of the density constraint"),
    }
    return [
        (Variable(words[name][0], STEP, "1", words[name][1], method.source), values)
        for name, values in trained.curves.items()
    ]
