"""One forward and backward: values of units and the metric's gradient at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnscope_kernels import AttentionCall

from ...core.errors import UnsupportedModelError
from ..gates.branches import full
from ..memory import explained
from ..sweep.grow import takes
from ..sweep.metrics import Metric, Readout

if TYPE_CHECKING:
    from ...models._base import Site
    from ..sweep.chunks import Chunk

Key = tuple[str, int]
"""(place, layer): `z`, `q`, `k`, `v` of attention, or a site of the residual stream."""


@dataclass(eq=False)
class Traced:
    """What one forward with gradients holds.

    Attributes:
        values: key → `[B, H or G, T, D]` for `z`, `q`, `k`, `v`; `[B, T, W]` for a site.
        gradients: key → the same shape: of the metric of each prompt, in this run.
        metric: `[B]`.
        calls: layer → attention call.
        backwards: backward passes that ran.
    """

    values: dict[Key, Tensor] = field(default_factory=dict)
    gradients: dict[Key, Tensor] = field(default_factory=dict)
    metric: Tensor | None = None
    calls: dict[int, AttentionCall] = field(default_factory=dict)
    dropped: list[dict[Key, Tensor]] = field(default_factory=list)
    backwards: int = 0


def trace(
    scope: Any,
    chunk: Chunk,
    ids: Tensor,
    keys: Sequence[Key],
    metric: Metric,
    *,
    embedding: Tensor | None = None,
    drop_layers: bool = False,
) -> Traced:
    """Run tokens once, and the metric's gradient back to every key.

    Args:
        scope: a transformers model.
        chunk: gives the metric's columns and targets.
        ids: `[B, T]` tokens that run.
        keys: where values and gradients are wanted.
        metric: of each prompt; its sum is differentiated.
        embedding: `[B, T, M]` in place of the first block's input.
        drop_layers: also run one backward for each block, in which nothing flows back through what that block writes
            (GradDrop of 2403.00745).

    Raises:
        UnsupportedModelError: the model's attention has no gradients here.
        DeviceError: the device ran out of memory.
    """
    found, leaves = Traced(), {}
    wanted = set(keys)
    gate: dict[str, int | None] = {"layer": None}

    def at(key: Key, x: Tensor) -> Tensor:
        if key not in wanted:
            return x
        leaves[key] = torch.zeros_like(x, requires_grad=True)
        found.values[key] = x.detach()
        return x + leaves[key]

    def tap(call: AttentionCall) -> Tensor:
        layer = call.layer
        found.calls[layer] = call.replace(q=call.q.detach(), k=call.k.detach(), v=call.v.detach())
        changed = {name: at((name, layer), getattr(call, name)) for name in ("q", "k", "v")}
        return at(("z", layer), full(call.replace(**changed)))

    def stream(layer: int, site: Site, x: Tensor) -> Tensor:
        if site == "block_input" and layer == 0 and embedding is not None:
            x = embedding
        if drop_layers and site in ("attention_output", "mlp_output") and x.requires_grad:
            x.register_hook(lambda gradient: gradient * 0 if gate["layer"] == layer else gradient)  # type: ignore[no-untyped-call]
        return at((site, layer), x)

    sites = {key[0] for key in wanted} - {"z", "q", "k", "v"}
    sites |= {"block_input"} if embedding is not None else set()
    sites |= {"attention_output", "mlp_output"} if drop_layers else set()
    options: dict[str, Any] = {"use_cache": False}
    last = chunk.targets.shape[1]
    if takes(scope.model, "logits_to_keep"):
        options["logits_to_keep"] = last
    with explained(scope, chunk.batch(ids)), torch.enable_grad():
        with scope.attach(tap, stream if sites else None, sorted(sites)):
            logits = scope.model(input_ids=ids, **options).logits[:, -last:]
        readout = Readout(chunk.rows, chunk.targets, None, logits.detach())
        found.metric = metric(logits[None], readout)[0]
        if not found.metric.requires_grad:
            raise UnsupportedModelError(
                f"gradient of {metric.name}", found="a metric without gradients", expected="a differentiable one"
            )
        names = list(leaves)
        found.gradients = _backward(found, [leaves[name] for name in names], names, drop_layers)
        for layer in range(scope.info.n_layers) if drop_layers else ():
            gate["layer"] = layer
            found.dropped.append(_backward(found, [leaves[name] for name in names], names, True))
    found.metric = found.metric.detach()
    return found


def _backward(found: Traced, leaves: list[Tensor], names: list[Key], keep: bool) -> dict[Key, Tensor]:
    assert found.metric is not None
    found.backwards += 1
    gradients = torch.autograd.grad(found.metric.sum(), leaves, retain_graph=keep, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient.detach()
        for name, leaf, gradient in zip(names, leaves, gradients, strict=True)
    }


@contextmanager
def stop_at(scope: Any, layer: int, stream: Callable[[int, Site, Tensor], Tensor]) -> Iterator[list[AttentionCall]]:
    """Let a forward begin at a block's input and end at its attention; the call is in the list.

    Whoever runs the model inside sees no result: the forward is left by an exception that this context takes.
    """
    calls: list[AttentionCall] = []

    class Stop(Exception):  # noqa: N818
        pass

    def tap(call: AttentionCall) -> Tensor:
        calls.append(call)
        raise Stop

    try:
        with scope.attach(tap, stream, ("block_input",), first_block=layer):
            yield calls
    except Stop:
        return
