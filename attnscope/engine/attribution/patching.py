"""Attribution patching: what patching each unit would do to the metric, from one gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from attnscope_kernels import attend

from ...core.errors import TaskError
from ..batches import PromptSet
from ..sweep.alternatives import Alternative, OtherRun, Zero
from ..sweep.chunks import Chunk, Positions, chunks
from ..sweep.metrics import Metric, metric_named, wide
from ..sweep.units import SITE, Module, Unit, units_of
from .gradients import Key, Traced, trace

if TYPE_CHECKING:
    from ...models._base import Scope

Where = Literal["base", "other"]
"""Which run's gradient is used: that of the prompts, or that of the values which are put in."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Estimates of a sweep's values.

    Attributes:
        units: one for each column.
        baseline: `[prompts]` the metric without edits.
        change: `[prompts, units]` estimated value − baseline: Σ (other − own) · ∂metric/∂own over positions.
        magnitude: `[prompts, units]` mean of |estimates| with each block's gradient dropped in turn, if asked for.
        forwards: forward-equivalents a prompt; a backward counts as two.
    """

    units: tuple[Unit, ...]
    baseline: np.ndarray
    change: np.ndarray
    magnitude: np.ndarray | None
    forwards: float

    @property
    def effect(self) -> np.ndarray:
        """Return −change, comparable with `Sweep.effect`."""
        return -self.change


def attribute(
    scope: Scope,
    prompts: PromptSet,
    module: Module = "head",
    *,
    metric: str | Metric = "log_probability",
    alternative: Alternative | None = None,
    positions: Positions = "all",
    base: str = "input_ids",
    at: Where = "base",
    grad_drop: bool = False,
    implementation: str = "auto",
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """Estimate what a sweep over all units of a kind would measure, from one forward and backward (2310.10348).

    The estimate is linear: good where a unit's change is small against the norms and softmaxes behind it, and blind to
    a saturated metric. `grad_drop` adds GradDrop of AtP* (2403.00745), which finds units whose paths cancel.

    Args:
        scope: a loaded transformers model whose weights need no gradients.
        prompts: as for `sweep`.
        module: of the units.
        metric: a differentiable one.
        alternative: what would take a unit's place: `Zero`, `Fixed`, `OtherRun`, `OtherPrompts`.
        positions: where; `each` is not offered.
        base: column of the prompts that run.
        at: whose gradient; `other` needs `OtherRun`.
        grad_drop: one backward more for each block.
        implementation: kernel implementation of the run that gives other values.
        batch_tokens: tokens in a forward at most.
        progress: called with prompts done and prompts in all.

    Raises:
        TaskError: as `sweep`; or `at="other"` without another run.
        UnsupportedModelError: the model's attention has no gradients here.

    Example:
        >>> import attnscope, datasets
        >>> prompts = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7, 9]], "answer_ids": [[11]]})
        >>> attribute(attnscope.load(device="cpu"), prompts).forwards
        3.0
    """
    chosen, other = metric_named(metric), alternative or Zero()
    if positions == "each" or (at == "other" and not isinstance(other, OtherRun)):
        raise TaskError(
            "attribution patching",
            found=f"positions {positions!r}, gradient at {at!r} of {other.name}",
            expected="positions together; the gradient of the other run only with another run",
        )
    units = units_of(scope, module)
    keys: list[Key] = sorted({("z" if unit.module == "head" else SITE[unit.module], unit.layer) for unit in units})
    baseline = np.full(len(prompts), np.nan)
    change = np.full((len(prompts), len(units)), np.nan)
    magnitude = np.full(change.shape, np.nan) if grad_drop else None
    parts = chunks(
        prompts,
        [chosen],
        positions,
        base,
        context_length=scope.info.context_length,
        most=max(1, batch_tokens // max(len(ids) for ids in prompts[base])),
        device=scope.device,
    )
    forwards, finished = 0.0, 0
    for chunk in parts:
        tracer = _Tracer(scope, chunk, keys, chosen, other, units, implementation)
        rows = list(chunk.prompts)
        traced, spent = tracer.at(at, grad_drop)
        forwards, finished = max(forwards, spent), finished + chunk.size
        baseline[rows] = tracer.baseline.double().cpu().numpy()
        change[rows] = tracer.products(traced.gradients, module)
        if magnitude is not None:
            dropped = [np.abs(tracer.products(gradients, module)) for gradients in traced.dropped]
            magnitude[rows] = sum(dropped) / max(1, len(dropped) - 1)
        if progress is not None:
            progress(finished, len(prompts))
    return Attribution(units, baseline, change, magnitude, forwards)


class _Tracer:
    """The runs of one chunk."""

    def __init__(
        self,
        scope: Any,
        chunk: Chunk,
        keys: list[Key],
        metric: Metric,
        other: Alternative,
        units: Sequence[Unit],
        implementation: str,
    ) -> None:
        self.scope, self.chunk, self.keys, self.metric, self.other = scope, chunk, keys, metric, other
        self.values = other.bind(scope, chunk, units, 0, implementation)
        self.where = chunk.where(0, chunk.ids.device)
        self.own: dict[Key, Tensor] = {}
        self.calls: Any = {}
        self.baseline = torch.empty(0)
        self._implementation, self._units = implementation, units

    def at(self, where: Where, grad_drop: bool) -> tuple[Traced, float]:
        """Return the run whose gradient is used, and forward-equivalents spent so far."""
        extra = 0.0 if isinstance(self.other, Zero) or not isinstance(self.other, OtherRun) else 1.0
        here = trace(self.scope, self.chunk, self.chunk.ids, self.keys, self.metric, drop_layers=grad_drop)
        assert here.metric is not None
        self.own, self.baseline, self.calls = here.values, here.metric, here.calls
        spent = 1.0 + 2.0 * here.backwards + extra
        if where == "base":
            return here, spent
        assert isinstance(self.other, OtherRun)
        there = trace(self.scope, self.chunk, self.other.ids(self.chunk), self.keys, self.metric, drop_layers=grad_drop)
        return there, spent + 1.0 + 2.0 * there.backwards - extra

    def products(self, gradients: dict[Key, Tensor], module: Module) -> np.ndarray:
        """Return Σ (other − own) · gradient over positions, `[B, units]`."""
        found = []
        for key in self.keys:
            own, gradient = self.own[key], wide(gradients[key])
            if key[0] == "z":
                other = self.values.heads(key[1], lambda layer=key[1]: self.calls[layer], own[None])  # type: ignore[misc]
                product = ((other.to(own).expand(1, *own.shape)[0] - own) * gradient).sum(-1)
                found.append(self._over_positions(product, 2))
            else:
                other = self.values.stream(key[1], key[0], own[None]).to(own).expand(1, *own.shape)[0]  # type: ignore[arg-type]
                product = (other - own) * gradient
                summed = self._over_positions(product, 1)
                found.append(summed if module == "neuron" else summed.sum(-1, keepdim=True))
        order = sorted(range(len(self.keys)), key=lambda i: self.keys[i][1])
        return torch.cat([found[i] for i in order], 1).double().cpu().numpy()

    def _over_positions(self, product: Tensor, axis: int) -> Tensor:
        if self.where is not None:
            shape = [1] * product.dim()
            shape[axis] = len(self.where)
            product = product * self.where.view(shape)
        return product.sum(axis)


Slot = Literal["query", "key", "value"]


def attribute_inputs(
    scope: Scope,
    prompts: PromptSet,
    *,
    metric: str | Metric = "logit_difference",
    column: str = "corrupt_ids",
    base: str = "input_ids",
    batch_tokens: int = 8192,
) -> dict[Slot, np.ndarray]:
    """Estimate what patching a head's queries, keys or values from another run would do (AtP*, 2403.00745).

    For queries and keys the softmax is computed again with the other ones (the QK fix): a saturated softmax has no
    gradient, and plain attribution patching misses it. What follows the head is linear, as in `attribute`.

    Returns:
        `query` `[prompts, L, H]`, `key` and `value` `[prompts, L, G]`: estimated value − baseline.

    Raises:
        TaskError: a column is missing, or pairs of different lengths.
        UnsupportedModelError: the model's attention has no gradients here.

    Example:
        >>> import attnscope, datasets
        >>> pairs = datasets.Dataset.from_dict({"input_ids": [[0, 5, 7]], "corrupt_ids": [[0, 6, 7]],
        ...                                     "answer_ids": [[11]], "wrong_ids": [[12]]})
        >>> attribute_inputs(attnscope.load(device="cpu"), pairs)["key"].shape
        (1, 8, 4)
    """
    info, chosen, other = scope.info, metric_named(metric), OtherRun(column)
    layers, heads = info.attention_layers, info.n_heads
    sizes: dict[Slot, int] = {"query": heads, "key": info.n_kv_heads, "value": info.n_kv_heads}
    found = {slot: np.full((len(prompts), len(layers), size), np.nan) for slot, size in sizes.items()}
    most = max(1, batch_tokens // max(len(ids) for ids in prompts[base]))
    keys: list[Key] = [("z", layer) for layer in layers]
    for chunk in chunks(
        prompts, [chosen], "all", base, context_length=info.context_length, most=most, device=scope.device
    ):
        here = trace(scope, chunk, chunk.ids, keys, chosen)
        there = trace(scope, chunk, other.ids(chunk), keys, chosen)
        for row, layer in enumerate(layers):
            call, others = here.calls[layer], there.calls[layer]
            for slot, name in (("query", "q"), ("key", "k"), ("value", "v")):
                with torch.no_grad():
                    z = attend(call.replace(**{name: getattr(others, name)})).output
                assert z is not None
                change = ((z - here.values["z", layer]) * wide(here.gradients["z", layer])).sum((2, 3))
                if slot != "query":
                    change = change.view(len(change), info.n_kv_heads, -1).sum(-1)
                found[slot][list(chunk.prompts), row] = change.double().cpu().numpy()  # type: ignore[index]
    return found
