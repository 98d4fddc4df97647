"""The residual stream of a planted model: which subspace holds what, and how large it is at each depth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from .codes import LENGTH
from .labels import supporting_head
from .spec import PlantedSink, PlantedSpec
from .vocabulary import BOS, N_RELATIONS

CONSTANT = 4.0  # amplitude of the direction that every token holds
PREVIOUS = 0.25  # amplitude at which the previous token's code is written
ASK = 0.5  # amplitude of the code that an asking token looks for
FOUND = 0.25  # amplitude at which a recall head or a first look-up writes the code that it found
STYLE = 2.0  # radius of the circle that unclassified heads read
EMBEDDING_NORM = 8.0
SINK_WEIGHT = 1e-3  # norm weight at the residual sink's dimension

# Slots of the residual stream, before it is rotated
CODE, PREV, ASKED, OUT, SCRATCH = (np.arange(start * LENGTH, (start + 1) * LENGTH) for start in range(5))
CONST, IS_BOS, PREV_BOS, SINK = (np.array([5 * LENGTH + index]) for index in range(4))
STYLES = np.array([5 * LENGTH + 4, 5 * LENGTH + 5])
FILL_START = 5 * LENGTH + 6
# with circuits only: what a look-up asks for, what the first one found, what a recall head found, the relations
NODE, HOP, HELD = (FILL_START + np.arange(index * LENGTH, (index + 1) * LENGTH) for index in range(3))
RELATED = FILL_START + 3 * LENGTH + np.arange(N_RELATIONS)


@dataclass(frozen=True)
class Layout:
    """Where things lie in the residual stream of one specification."""

    spec: PlantedSpec

    def rng(self, *key: int) -> np.random.Generator:
        """Return the random stream of one part of the model."""
        return np.random.default_rng([self.spec.seed, *key])

    @cached_property
    def frame(self) -> np.ndarray:
        """`[d, d]` orthogonal: column s is the residual direction of slot s.

        The sink slot and the residual sink (the last slot) are coordinates; everything else is rotated at random.
        """
        width, rng = self.spec.hidden_size, self.rng(0)
        residual = self.spec.residual_sink
        sink = int(rng.choice([d for d in range(width) if residual is None or d != residual[0]]))
        single = {int(SINK[0]): sink} | ({width - 1: residual[0]} if residual else {})
        frame = np.zeros((width, width))
        for slot, coordinate in single.items():
            frame[coordinate, slot] = 1.0
        slots = [slot for slot in range(width) if slot not in single]
        coordinates = [coordinate for coordinate in range(width) if coordinate not in single.values()]
        rotation, triangle = np.linalg.qr(rng.standard_normal((len(slots), len(slots))))
        frame[np.ix_(coordinates, slots)] = rotation * np.sign(np.diag(triangle))
        return frame

    def read(self, slots: np.ndarray) -> np.ndarray:
        """Return rows that read slots from a (normalised) residual, `[n_slots, d]`."""
        return self.frame[:, slots].T

    @property
    def sink_coordinate(self) -> int:
        """The residual dimension that massive tokens are massive in."""
        return int(np.argmax(np.abs(self.frame[:, SINK[0]])))

    @cached_property
    def codes(self) -> np.ndarray:
        """`[vocab, 32]` code of each token; zero for BOS."""
        return self.spec.vocabulary.codes(self.rng(1))

    @cached_property
    def embedding(self) -> np.ndarray:
        """`[vocab, d]` token embeddings: norm 8 everywhere but in the residual sink."""
        spec, rng = self.spec, self.rng(2)
        slots = np.zeros((spec.vocab_size, spec.hidden_size))
        slots[:, CODE] = self.codes
        slots[:, CONST] = CONSTANT
        angles = rng.uniform(0, 2 * np.pi, spec.vocab_size)
        slots[:, STYLES] = STYLE * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        for token, asked in spec.vocabulary.asked().items():
            slots[token, ASKED] = ASK * self.codes[asked]
        # answers have half the style, so that no unclassified head happens to pick them
        for answers in spec.vocabulary.answers:
            slots[answers.start : answers.stop, STYLES] /= 2
        slots[BOS, IS_BOS], slots[BOS, STYLES] = LENGTH**0.5, 0.0
        start = FILL_START
        if spec.circuits:
            start = int(RELATED[-1]) + 1
            sources, relations = spec.vocabulary.sources, spec.vocabulary.relations
            slots[sources.start : sources.stop, NODE] = ASK * self.codes[sources.start : sources.stop]
            slots[relations, RELATED] = 1.0
        filler = rng.standard_normal((spec.vocab_size, spec.hidden_size - start - bool(spec.residual_sink)))
        missing = np.sqrt(EMBEDDING_NORM**2 - (slots**2).sum(1, keepdims=True))
        slots[:, start : start + filler.shape[1]] = filler / np.linalg.norm(filler, axis=1, keepdims=True) * missing
        if spec.residual_sink:
            slots[:, -1] = spec.residual_sink[1]
            slots[BOS, -1] = 0.0
        return slots @ self.frame.T

    def rms(self, layer: int, site: Literal["attention", "mlp"], token: int | Literal["bos"] | None = None) -> float:
        """Return the rms of the residual that a block's norm reads, at a token; None means an ordinary token."""
        writer = supporting_head(self.spec)
        written = writer is not None and (layer > writer.layer or (layer == writer.layer and site == "mlp"))
        power = EMBEDDING_NORM**2 + (PREVIOUS**2 * LENGTH if written else 0.0)
        if self.spec.residual_sink and token != "bos":
            power += self.spec.residual_sink[1] ** 2
        power += sum(sink.norm**2 for sink in self.alive(layer) if sink.token == token)
        return float(np.sqrt(power / self.spec.hidden_size))

    def alive(self, layer: int) -> list[PlantedSink]:
        """Return the sinks that are massive at the input of a block (its attention's and its MLP's)."""
        return [sink for sink in self.spec.sinks if sink.alive_at(layer, self.spec.n_layers)]

    def ratio(self, layer: int) -> float:
        """Return how many times larger than an ordinary token the largest massive token but BOS is, >= 1."""
        ordinary = self.rms(layer, "attention")
        massive = [self.rms(layer, "attention", sink.token) for sink in self.alive(layer) if sink.token != "bos"]
        return max([ordinary, *massive]) / ordinary
