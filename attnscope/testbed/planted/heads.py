"""Query, key, value and output weights of planted attention heads.

A head dimension of D has D/2 rotary pairs (i, i + D/2). The fast pairs see distance: their key is one flag, and the
query's coefficients make a wave of it (see `waves`). The slow pairs see content: a 32-dimensional code, two style
dimensions, and two flags. The flag "not BOS" scales like everything else at a key and is exactly zero at BOS, so a
logit is 0 at BOS, positive where the head looks and negative elsewhere: the signs survive any rescaling of a key by
its norm, and a head that finds nothing rests on BOS.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from attnscope.core.ids import HeadId

from . import circuits, waves
from .codes import LENGTH
from .labels import supporting_head
from .layout import (
    ASK,
    ASKED,
    CODE,
    CONST,
    CONSTANT,
    FOUND,
    HELD,
    HOP,
    IS_BOS,
    NODE,
    OUT,
    PREV,
    PREV_BOS,
    PREVIOUS,
    RELATED,
    SCRATCH,
    SINK,
    STYLE,
    STYLES,
    Layout,
)

THRESHOLD = 20.0  # codes that match give 32, others at most 8
NATS = 30.0  # logit of a match, and minus that of anything else
SHARPNESS = 10.0  # concentration of unclassified heads on their preferred style
COPY = {"induction": 0.05, "retrieval": 0.1}  # amplitude of the copied code, all heads of the kind together
READS_PREVIOUS = frozenset({*COPY, "lookup", "second_lookup"})  # kinds whose keys are the previous token
IDLE_WRITE = 0.06  # amplitude of what the other heads write, all together


class Dims(NamedTuple):
    """Which of a head's D dimensions hold what."""

    cosine: np.ndarray
    sine: np.ndarray
    content: np.ndarray
    style: np.ndarray
    not_bos: int
    sink: int


def dims(head_dim: int) -> Dims:
    """Return the dimensions of the fast pairs, the content pairs, the style pair and the flags.

    Example:
        >>> dims(64).not_bos, len(dims(64).content), len(dims(128).cosine)
        (31, 32, 46)
    """
    half = head_dim // 2
    fast = half - waves.CONTENT_PAIRS
    slow = np.arange(fast, half - 2)
    return Dims(
        cosine=np.arange(fast),
        sine=np.arange(fast) + half,
        content=np.concatenate([slow, slow + half]),
        style=np.array([half - 2, head_dim - 2]),
        not_bos=half - 1,
        sink=head_dim - 1,
    )


def key_weights(layout: Layout, layer: int, group: int) -> np.ndarray:
    """Return the key rows of one KV head, `[D, d]`; its content is the previous token where a head copies."""
    spec, place = layout.spec, dims(layout.spec.head_dim)
    heads = [HeadId(layer, group * spec.group_size + index) for index in range(spec.group_size)]
    copies = any(spec.kind(head) in READS_PREVIOUS for head in heads)
    not_bos = layout.read(CONST)[0] / CONSTANT - layout.read(IS_BOS)[0] / LENGTH**0.5
    weights = np.zeros((spec.head_dim, spec.hidden_size))
    weights[place.cosine] = not_bos
    weights[place.content] = layout.read(PREV) / PREVIOUS if copies else layout.read(CODE)
    weights[place.style] = layout.read(STYLES) / STYLE
    weights[place.not_bos] = not_bos
    weights[place.sink] = layout.read(SINK)[0]
    return weights


def value_weights(layout: Layout, layer: int) -> np.ndarray:
    """Return the value rows, `[D, d]`: the token's code, and whether it is BOS; the same for every KV head."""
    weights = np.zeros((layout.spec.head_dim, layout.spec.hidden_size))
    weights[:LENGTH] = layout.read(CODE) * layout.rms(layer, "attention")
    weights[LENGTH] = layout.read(IS_BOS)[0] * layout.rms(layer, "attention", "bos")
    return weights


def query_weights(layout: Layout, head: HeadId, kind: str) -> np.ndarray:
    """Return the query rows of one head, `[D, d]`."""
    spec, place = layout.spec, dims(layout.spec.head_dim)
    rms, ratio = layout.rms(head.layer, "attention"), layout.ratio(head.layer)
    weights = np.zeros((spec.head_dim, spec.hidden_size))
    # 1 at every ordinary and at every massive token: keys shrink with their norm, queries made of this do not
    one = layout.read(CONST)[0] * rms / CONSTANT + layout.read(SINK)[0] * spec.hidden_size**-0.5
    constant = layout.read(CONST)[0] / CONSTANT

    def add_wave(wave: np.ndarray, gain: float, flag: np.ndarray) -> None:
        fast = len(place.cosine)
        weights[place.cosine] += gain * np.outer(wave[:fast], flag)
        weights[place.sine] -= gain * np.outer(wave[fast : 2 * fast], flag)
        weights[place.not_bos] += gain * wave[-1] * flag

    size = (spec.head_dim, spec.context_length)
    if kind == "sink" and spec.sink_heads_read == "direction":
        weights[place.sink] = NATS * spec.hidden_size**-0.5 * one
    elif kind == "sink":
        weights[place.not_bos] = -NATS * rms * ratio * one
    elif kind == "previous_token":
        add_wave(waves.peak(*size, 1), NATS * rms * ratio, one)
    elif kind == "positional":
        # where nothing stands that far back it looks at itself: a function of distance everywhere; the far peak
        # stays above that at a massive key
        height = max(3, math.ceil(2 * ratio))
        add_wave(waves.far_peak(*size, spec.far_distance, height), NATS * rms * ratio, one)
    elif kind == "local":
        add_wave(waves.plateau(*size), rms, one)
    elif kind == "duplicate_token":
        # a match leaves 11 and the wave takes at most `depth` away; it takes 1.5 `depth` from the token itself
        depth = 22 / (1 + waves.SELF_DEPTH)
        gain = NATS / (11 - depth) * (rms * ratio) ** 2
        weights[place.content] = gain * layout.read(CODE)
        weights[place.not_bos] = -gain * THRESHOLD * constant
        add_wave(waves.dip(*size), gain * depth, constant)
    elif kind == "recall":
        # the token before at its relations, BOS everywhere else
        asked = rms * layout.read(RELATED[circuits.relations_of(spec)[head]]).sum(0)
        add_wave(waves.peak(*size, 1), NATS * rms * ratio, asked)
        weights[place.not_bos] -= NATS * rms * ratio * (one - asked)
    elif kind in READS_PREVIOUS:
        gain = NATS / 11 * (rms * ratio) ** 2
        weights[place.content] = gain * _looked_for(layout, kind)
        weights[place.not_bos] = -gain * THRESHOLD * constant
    elif kind == "unclassified":
        angle = layout.rng(3, *head).uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])
        weights[place.style] = SHARPNESS * rms**2 * turn @ layout.read(STYLES) / STYLE
    return weights * spec.head_dim**0.5


def _looked_for(layout: Layout, kind: str) -> np.ndarray:
    """Return rows that read the code which a head of this kind looks for, `[32, d]`."""
    slots, amplitude = {
        "induction": (CODE, 1.0),
        "retrieval": (ASKED, ASK),
        "lookup": (NODE, ASK),
        "second_lookup": (HOP, FOUND),
    }[kind]
    return layout.read(slots) / amplitude


def output_weights(layout: Layout, head: HeadId, kind: str) -> np.ndarray:
    """Return the output columns of one head, `[d, D]`."""
    spec = layout.spec
    weights = np.zeros((spec.hidden_size, spec.head_dim))
    if kind == "previous_token" and head == supporting_head(spec):
        weights[:, :LENGTH] = PREVIOUS * layout.read(PREV).T
        weights[:, LENGTH] = PREVIOUS * layout.read(PREV_BOS)[0]
    elif kind in COPY:
        weights[:, :LENGTH] = COPY[kind] / len(spec.of_kind(kind)) * layout.read(OUT).T
    elif kind == "recall":
        weights[:, :LENGTH] = FOUND * layout.read(HELD).T
    elif kind == "lookup":
        weights[:, :LENGTH] = FOUND * layout.read(HOP).T @ circuits.next_source(layout)
    elif kind == "second_lookup":
        weights[:, :LENGTH] = circuits.ANSWER * layout.read(OUT).T
    else:
        mixing, _ = np.linalg.qr(layout.rng(4, *head).standard_normal((LENGTH, LENGTH)))
        amplitude = IDLE_WRITE / len(spec.all_heads()) ** 0.5
        weights[:, :LENGTH] = amplitude * layout.read(SCRATCH).T @ mixing
    return weights
