"""Which module wrote a sink: contributions along its direction, cosines, the smallest set of neurons (2512.22213)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Module = Literal["embedding", "attention", "mlp"]
NEURON_SHARE = 0.9
"""A minimal set of neurons gives this share of the write."""


@dataclass(frozen=True)
class Written:
    """What one module adds along a direction: `along`, and `share` of the whole."""

    module: Module
    layer: int
    along: float
    share: float


def contributions(
    embedding: np.ndarray, attention: np.ndarray, mlp: np.ndarray, output: np.ndarray, first: int
) -> list[Written]:
    """Return what embedding, attention and MLPs up to a block add along the direction of its output.

    They sum to the output's norm.

    Args:
        embedding: `[M]` the first block's input.
        attention: `[L, M]` what attention adds.
        mlp: `[L, M]` what MLPs add.
        output: `[M]` output of block `first`.
        first: 0-based block.

    Example:
        >>> e, a, m = np.array([1.0, 0.0]), np.zeros((1, 2)), np.array([[0.0, 2.0]])
        >>> [(w.module, round(w.share, 2)) for w in contributions(e, a, m, e + m[0], 0)]
        [('embedding', 0.2), ('attention', 0.0), ('mlp', 0.8)]
    """
    size = float(np.linalg.norm(output))
    unit = output / max(size, 1e-30)
    modules: list[tuple[Module, int, np.ndarray]] = [("embedding", -1, embedding)]
    for layer in range(first + 1):
        modules += [("attention", layer, attention[layer]), ("mlp", layer, mlp[layer])]
    return [
        Written(module, layer, float(write @ unit), float(write @ unit) / max(size, 1e-30))
        for module, layer, write in modules
    ]


def minimal_neurons(along: np.ndarray, share: float = NEURON_SHARE) -> tuple[int, ...]:
    """Return the fewest neurons whose contributions add up to a share of the whole write, largest first.

    Args:
        along: `[N]` contribution of each neuron along the sink's direction.
        share: 0..1.

    Example:
        >>> minimal_neurons(np.array([0.1, 5.0, -0.2, 4.0]), 0.9)
        (1, 3)
    """
    total = along.sum()
    if total <= 0:
        return ()
    order = np.argsort(-along, kind="stable")
    needed = int(np.searchsorted(np.cumsum(along[order]), share * total)) + 1
    return tuple(int(n) for n in order[:needed])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of two vectors, 0 where one is 0.

    Example:
        >>> cosine(np.array([1.0, 0.0]), np.array([-2.0, 0.0]))
        -1.0
    """
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0
