"""Neurons that turn a token into a massive one, and neurons that turn it back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .codes import LENGTH
from .layout import CODE, CONST, CONSTANT, IS_BOS, SINK, Layout
from .spec import PlantedSink

OPEN = 30.0  # least |gate| of a neuron, at its token and at every other


class Neurons(NamedTuple):
    """SwiGLU weights of one block: gate and up `[N, d]`, down `[d, N]`."""

    gate: np.ndarray
    up: np.ndarray
    down: np.ndarray


def width(layout: Layout) -> int:
    """Return the number of neurons a block needs, at least 16."""
    return max(16, 2 * len(layout.spec.sinks) + 1)


def neurons(layout: Layout, layer: int) -> Neurons:
    """Return the neurons of one block: writers of sinks, then erasers, then zeros; the last one fades a sink."""
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
    return block


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
