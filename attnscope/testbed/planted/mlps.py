"""Neurons that turn a token into a massive one, neurons that turn it back, and neurons that hold facts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import circuits
from .codes import LENGTH
from .layout import CODE, CONST, CONSTANT, FOUND, HELD, IS_BOS, OUT, SINK, Layout
from .spec import PlantedSink, PlantedSpec

OPEN = 30.0  # least |gate| of a neuron, at its token and at every other


class Neurons(NamedTuple):
    """SwiGLU weights of one block: gate and up `[N, d]`, down `[d, N]`."""

    gate: np.ndarray
    up: np.ndarray
    down: np.ndarray


def width(layout: Layout) -> int:
    """Return the number of neurons a block needs, at least 16."""
    return max(16, 2 * len(layout.spec.sinks) + len(circuits.facts(layout.spec)) + 1)


def neurons(layout: Layout, layer: int) -> Neurons:
    """Return the neurons of one block: sinks' writers, erasers, facts (`fact_neurons`), zeros; the last one fades."""
    size, count = layout.spec.hidden_size, width(layout)
    block = Neurons(np.zeros((count, size)), np.zeros((count, size)), np.zeros((size, count)))
    writes = [(sink, True) for sink in layout.spec.sinks if sink.layer == layer]
    erases = [
        (sink, False)
        for sink in layout.alive(layer)
        if not sink.fading and not sink.alive_at(layer + 1, layout.spec.n_layers)
    ]
    fading = [sink for sink in layout.spec.sinks if sink.fading and layer > sink.layer]
    for sink in fading:
        steps, reading = len(sink.outputs(layout.spec.n_layers)), size**0.5  # what a normalised sink reads as
        block.gate[-1] = block.up[-1] = layout.read(SINK)[0]
        block.down[:, -1] = -sink.norm / steps / (reading**2 / (1 + np.exp(-reading))) * layout.read(SINK)[0]
    for index, (sink, writing) in enumerate(writes + erases):
        gate, opening = _gate(layout, layer, sink)
        rms = layout.rms(layer, "mlp", sink.token)
        block.gate[index] = gate
        # up is 1 at the token
        block.up[index] = layout.read(CONST)[0] * rms / CONSTANT if writing else layout.read(SINK)[0] * rms / sink.norm
        norm = sink.norm if writing else -sink.norm
        block.down[:, index] = norm / opening * layout.read(SINK)[0]
    for index, fact in fact_neurons(layout.spec, layer).items():
        _store(layout, layer, block, index, fact)
    return block


def fact_neurons(spec: PlantedSpec, layer: int) -> dict[int, circuits.Fact]:
    """Return the neurons of one block that hold facts: index in the MLP → fact.

    Example:
        >>> from attnscope.core.ids import HeadId
        >>> spec = PlantedSpec(hidden_size=288, heads={HeadId(1, 0): "recall"})
        >>> len(fact_neurons(spec, 0)), len(fact_neurons(spec, 1))
        (0, 32)
    """
    start = 2 * len(spec.sinks)
    return {start + index: fact for index, fact in enumerate(circuits.facts(spec)) if fact.head.layer == layer}


def _store(layout: Layout, layer: int, block: Neurons, index: int, fact: circuits.Fact) -> None:
    """Write the value where the recall head holds the entity and the token is the relation."""
    codes, constant = layout.codes, layout.read(CONST)[0] / CONSTANT
    # both match: 64; one of them: at most 40
    both = codes[fact.entity] @ layout.read(HELD) / FOUND + codes[fact.relation] @ layout.read(CODE) - 52 * constant
    rms = layout.rms(layer, "mlp")
    largest = max([rms, *(layout.rms(layer, "mlp", sink.token) for sink in layout.alive(layer))])
    opening = OPEN * largest / rms
    block.gate[index] = OPEN / 12 * largest * both
    block.up[index] = constant * rms
    written = circuits.ANSWER / (opening / (1 + np.exp(-opening))) * codes[fact.value]
    block.down[:, index] = written @ layout.read(OUT)


def _gate(layout: Layout, layer: int, sink: PlantedSink) -> tuple[np.ndarray, float]:
    """Return gate weights `[d]` that only this token opens, and silu(gate) there."""
    threshold = layout.read(CONST)[0] / CONSTANT
    if sink.token == "bos":
        weights, margin = layout.read(IS_BOS)[0] / LENGTH**0.5 - threshold / 2, 0.5
    else:
        code = layout.codes[sink.token]
        weights, margin = code @ layout.read(CODE) - 20 * threshold, 12.0
    tokens = [None, "bos", sink.token, *(other.token for other in layout.alive(layer))]
    gain = OPEN / margin * max(layout.rms(layer, "mlp", token) for token in tokens)
    gate = gain * margin / layout.rms(layer, "mlp", sink.token)
    return gain * weights, float(gate / (1 + np.exp(-gate)))
